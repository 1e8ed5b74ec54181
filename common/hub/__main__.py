"""Trained models on the Hub: ``python -m common.hub card | publish | verify``."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, plain, run
from common.cli.options import CorpusOptions
from common.runtime.project import NAMESPACE

MODULE = "common.hub"
ITEMS = 200
COMMANDS = """\
usage: python -m common.hub COMMAND …

  card OUTPUT_DIR                            write the model's card and its pictures into its folder
  publish OUTPUT_DIR --repo_id user/name     publish a trained, evaluated model, and verify what was published
  verify user/name                           download a published model afresh and score it again

python -m common.hub COMMAND --help says more. Exit status: 2 where you must mend something, 75 where the Hub failed and the same
command may do later."""


@dataclass(kw_only=True)
class CardArguments:
    """Writes a trained model's card (README.md) and its pictures into its folder, from the records there."""

    output_dir: tuple[str, ...] = option((), "folder of the trained model", positional=True)
    repo_id: str | None = option(None, f"where it will be published (default: {NAMESPACE}/<the folder's name>)")

    def __post_init__(self) -> None:
        _single(self.output_dir, "the folder of a trained model")


@dataclass(kw_only=True)
class PublishArguments(CorpusOptions):
    """Publishes a trained and evaluated model: checks everything, one commit, a tag, then downloads and scores it again.

    The token comes from `hf auth login` or HF_TOKEN, never from an argument. The corpus is read to verify; by default
    it is the one that training read. Publishing the same folder again uploads nothing.

    A Hub that fails is asked again, for some minutes. Exit status 75 says that it went on failing: later, the same command
    does what is missing. 2 says that something is to be mended first.
    """

    output_dir: tuple[str, ...] = option((), "folder of the trained model", positional=True)
    repo_id: str = option(help="repository on the Hub, as user/name")
    private: bool = option(False, "make a new repository private")
    tag: str | None = option(None, "tag of this version, as v1")
    dry_run: bool = option(False, "list the files and print the card; ask and change nothing")
    verify: bool = option(True, "download what was published and score it again")
    items: int = option(ITEMS, "items to score again; 0 for all", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _single(self.output_dir, "the folder of a trained model")


@dataclass(kw_only=True)
class VerifyArguments(CorpusOptions):
    """Downloads a published model into an empty cache, loads it by the code on its card and scores it again: answers may
    differ from the published ones only within .01 of a tie."""

    repo_id: tuple[str, ...] = option((), "the model on the Hub, as user/name", positional=True)
    revision: str | None = option(None, "its branch, tag or commit")
    items: int = option(ITEMS, "items to score again; 0 for all", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _single(self.repo_id, "the id of a model on the Hub, as user/name")


def _single(words: tuple[str, ...], expected: str) -> None:
    if len(words) != 1:
        raise UserError(f"{len(words)} names were given", expected=expected)


def card(arguments: CardArguments) -> None:
    """Writes the card into the model's folder."""
    from common.hub.card import CARD, read_trained, write
    from common.hub.package import check_name, publication_of

    folder = Path(arguments.output_dir[0])
    trained = read_trained(folder)
    name = arguments.repo_id or f"{NAMESPACE}/{folder.resolve().name}"
    check_name(name)
    write(publication_of(trained).render(trained, name), folder)
    log(f"card: {folder / CARD}")


def publish(arguments: PublishArguments) -> None:
    """Publishes a model and verifies it, or with ``dry_run`` shows what would be published."""
    from common.hub.card import CARD, write
    from common.hub.package import check_access, check_tag, prepare
    from common.hub.upload import publish as upload
    from common.hub.verify import scored_corpus

    folder = Path(arguments.output_dir[0])
    check_tag(arguments.tag)
    package = prepare(folder, arguments.repo_id)
    if arguments.dry_run:
        for path in sorted(package.files):
            print(f"{package.size(path):>14,}  {path}")
        text = package.files[CARD]
        print(f"\n{text.decode() if isinstance(text, bytes) else ''}", end="")
        log("nothing was asked of the Hub and nothing was changed")
        return
    if arguments.verify:
        scored_corpus(package.trained, arguments)  # what is missing to verify it is said before it is published
    check_access(arguments.repo_id, package.trained.base["name"])
    commit, new = upload(package, arguments.repo_id, private=arguments.private, tag=arguments.tag)
    if os.access(folder, os.W_OK):
        if (folder / CARD).is_file() and (folder / CARD).read_bytes() != package.files[CARD]:
            log(f"{folder / CARD} is written anew: cards are made from records, not by hand")
        write({name: content for name, content in package.files.items() if isinstance(content, bytes)}, folder)
    done = "published" if new else "published already, nothing was uploaded"
    log(f"{done}: {arguments.repo_id}, commit {commit}{f', tag {arguments.tag}' if arguments.tag else ''}")
    if arguments.verify:
        prove(arguments.repo_id, commit, arguments, arguments.items)


def prove(repo_id: str, revision: str | None, corpus: CorpusOptions, items: int) -> None:
    """Verifies a published model and prints what was found."""
    from common.hub.verify import verify

    found = verify(
        repo_id,
        revision,
        CorpusOptions(
            data_dir=corpus.data_dir, dataset_name=corpus.dataset_name, dataset_revision=corpus.dataset_revision
        ),
        items=items,
    )
    print(plain(f"verified: {repo_id}: {found.line()}"))


def main() -> None:
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    if command in ("-h", "--help"):
        print(COMMANDS)
        return
    if command not in ("card", "publish", "verify"):
        raise UserError(f"unknown command {command!r}", expected="card, publish or verify", fix="see --help")
    prog = f"python -m {MODULE} {command}"
    if command == "card":
        card(parse(CardArguments, rest, prog=prog, examples=f"  {prog} output/sbic_llama2_7b/offensiveYN"))
        return
    example = {
        "publish": f"  {prog} output/sbic_llama2_7b/offensiveYN --repo_id {NAMESPACE}/llama2-7b-offensiveYN --tag v1",
        "verify": f"  {prog} {NAMESPACE}/llama2-7b-offensiveYN --revision v1",
    }[command]
    if command == "publish":
        arguments = parse(PublishArguments, rest, prog=prog, examples=example)
        quiet_libraries()
        publish(arguments)
        return
    asked = parse(VerifyArguments, rest, prog=prog, examples=example)
    quiet_libraries()
    prove(asked.repo_id[0], asked.revision, asked, asked.items)


if __name__ == "__main__":
    run(main)
