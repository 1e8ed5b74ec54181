"""Export an adapter as a plain model: ``python -m sbic_llama.export ADAPTER --to merged --output_dir DIR``."""

from __future__ import annotations

from common.cli.arguments import parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import run
from sbic_llama.exporting.arguments import ExportArguments

MODULE = "sbic_llama.export"


def main() -> None:
    arguments = parse(
        ExportArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} output/miniature_sbic/offensiveYN --to merged --output_dir output/merged\n"
        f"  python -m {MODULE} user/name@v1 --to gguf --dtype q8_0 --check --texts posts.csv --output_dir output/gguf",
    )
    quiet_libraries()
    from common.results import rendering
    from sbic_llama.exporting.run import export

    rendering.show([export(arguments)])
    log(f"written: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
