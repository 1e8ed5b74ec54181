"""Run this project's commands by their names: ``snli --help`` lists them."""

from __future__ import annotations

from common.cli.subcommands import main as run_subcommand


def main() -> None:
    """Run the subcommand that the command line names."""
    run_subcommand("snli_roberta", "snli")


if __name__ == "__main__":
    main()
