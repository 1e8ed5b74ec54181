"""Write a methods section from records: ``python -m sbic_llama.methods ADAPTER prevalence.json --output methods.md``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.runtime.files import atomic_write

MODULE = "sbic_llama.methods"


@dataclass(kw_only=True)
class MethodsArguments:
    """Writes a methods section, with the source of each number, from the records of adapters and the files of findings.

    What no record holds is left out. The works that it cites are in a file beside it, which ends with .bib.
    """

    records: tuple[str, ...] = option(
        (), "folders of adapters and of trust pages, and JSON files of findings", positional=True
    )
    output: Path = option(Path("methods.md"), "file to write, .md (for Pandoc) or .tex (to be included in a document)")

    def __post_init__(self) -> None:
        if not self.records:
            raise UserError("no records were given", expected="folders of adapters, or JSON files of findings")
        if self.output.suffix not in (".md", ".tex"):
            raise UserError("unknown format", file=self.output, expected="a name that ends with .md or .tex")


def main() -> None:
    arguments = parse(
        MethodsArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} output/miniature_sbic/offensiveYN output/trust --output methods.tex",
    )
    from sbic_llama.evaluation.methods_section import Records, render

    records = Records()
    for path in arguments.records:
        records.add(Path(path))
    bibliography = arguments.output.with_suffix(".bib")
    for path in (arguments.output, bibliography):
        if path.exists():
            raise UserError("the output already exists", file=path, fix="remove it, or choose another --output")
    texts = render(records, "latex" if arguments.output.suffix == ".tex" else "markdown")
    for path, text in zip((arguments.output, bibliography), texts, strict=True):
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    log(f"methods: {arguments.output}; what it cites: {bibliography}")


if __name__ == "__main__":
    run(main)
