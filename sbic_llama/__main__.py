"""Run this project's commands by their names: ``sbic --help`` lists them."""

from __future__ import annotations

from common.cli.subcommands import main as run_subcommand


def main() -> None:
    """Run the subcommand that the command line names."""
    run_subcommand("sbic_llama", "sbic")


if __name__ == "__main__":
    main()
