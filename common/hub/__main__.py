"""Put trained models on the Hub: ``python -m common.hub card | publish | verify | space``."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli.arguments import COMPLETING, option, parse
from common.cli.console import log, quiet_libraries, warn
from common.cli.errors import UserError, plain, run
from common.cli.extras import require
from common.cli.options import TableOptions
from common.cli.subcommands import typed
from common.runtime.project import NAMESPACE

if TYPE_CHECKING:
    from common.hub.package import Package

MODULE = "common.hub"
ITEMS = 200
COMMANDS = """\
usage: python -m common.hub COMMAND …

  card OUTPUT_DIR                            write a model's card and its pictures into its folder
  publish OUTPUT_DIR --repo_id user/name     publish a trained, evaluated model and verify the result
  verify user/name                           download a published model and score it again
  space user/name --adapter user/model       put a page to try published models online, as a Space

Run python -m common.hub COMMAND --help for more. Exit status 2: fix something first. 75: the Hub failed, so repeat the same
command later."""


@dataclass(kw_only=True)
class CardArguments:
    """Writes a trained model's card (README.md) and its pictures into its folder, from the records there."""

    output_dir: tuple[str, ...] = option((), "folder of the trained model", positional=True)
    repo_id: str | None = option(None, f"where it will be published (default: {NAMESPACE}/<folder name>)")


@dataclass(kw_only=True)
class PublishArguments(TableOptions):
    """Publishes a trained and evaluated model: scores some items again, makes one commit and a tag, then downloads and verifies.

    The token comes from `hf auth login` or HF_TOKEN, never from an argument. The corpus is read to verify the model; by
    default it is the training corpus. The adapter of a codebook needs --data. Publishing the same folder again uploads nothing.

    A failing Hub is asked again for some minutes. Exit status 75 means that it kept failing: the same command, run later,
    does what is missing. 2 means that something must be fixed first.
    """

    output_dir: tuple[str, ...] = option((), "folder of the trained model", positional=True)
    repo_id: str = option(help="repository on the Hub, as user/name")
    private: bool = option(False, "make a new repository private")
    tag: str | None = option(None, "tag of this version, such as v1")
    overwrite: bool = option(False, "replace another model there, and changes that were made on the Hub")
    dry_run: bool = option(False, "list the files and print the card without contacting the Hub or writing anything")
    verify: bool = option(True, "score items again with the card's code, before the upload and after a download")
    items: int = option(ITEMS, "items to score again; 0 for all", minimum=0)

    def __post_init__(self) -> None:
        TableOptions.__post_init__(self)
        if self.items != ITEMS and not self.verify:
            raise UserError("nothing is scored again with --verify false", key="items", fix="remove one of them")


@dataclass(kw_only=True)
class VerifyArguments(TableOptions):
    """Downloads a published model into an empty cache, runs the code on its card and compares its answers with the record.

    Labels may differ only where two are within .01 of a tie, and probabilities by .001 in fp32 (.1, and .02 on average, in half
    precision).
    """

    repo_id: tuple[str, ...] = option((), "the model on the Hub, as user/name or user/name@v1", positional=True)
    revision: str | None = option(None, "its branch, tag or commit")
    items: int = option(ITEMS, "items to score again; 0 for all", minimum=0)


@dataclass(kw_only=True)
class SpaceArguments:
    """Puts the page of sbic_llama.app or snli_roberta.app online, with published models: creates or updates a Gradio Space.

    The Space installs this project at the commit that runs, with the packages' versions of this machine, and loads each model
    at the commit that its name means now: to update it, repeat the command. It runs on the Hub's CPUs; choose a GPU in its
    settings. The token comes from `hf auth login` or HF_TOKEN and does not go into the Space: for private or gated models, add a
    secret HF_TOKEN to its settings. The Hub asks for a paid plan to create Spaces that run code.
    """

    repo_id: tuple[str, ...] = option((), "the Space on the Hub, as user/name", positional=True)
    adapter: tuple[str, ...] = option((), "adapters of sbic_llama on the Hub, user/name@v1 for a revision")
    model: tuple[str, ...] = option((), "classifiers of snli_roberta on the Hub, user/name@v1 for a revision")
    private: bool = option(False, "make a new Space private")
    overwrite: bool = option(False, "replace other files there, and changes that were made on the Hub")
    dry_run: bool = option(False, "print the files without changing anything on the Hub")

    def __post_init__(self) -> None:
        if bool(self.adapter) == bool(self.model):
            problem = "both of them were given" if self.adapter else "no model was given"
            raise UserError(problem, key="--adapter, --model", expected="one of the two")


def _single(words: tuple[str, ...], expected: str) -> str:
    if len(words) != 1:
        raise UserError(f"got {len(words)} names", expected=expected)
    return words[0]


def card(arguments: CardArguments) -> None:
    """Write the card into the model's folder."""
    from common.hub.card import CARD, read_trained, write
    from common.hub.package import check_name, publication_of

    require("plots")
    folder = Path(_single(arguments.output_dir, "the folder of a trained model"))
    trained = read_trained(folder)
    name = arguments.repo_id or f"{NAMESPACE}/{folder.resolve().name}"
    check_name(name)
    write(publication_of(trained).render(trained, name), folder)
    log(f"card: {folder / CARD}")


def publish(arguments: PublishArguments) -> None:
    """Publish a model and verify it, or with ``dry_run`` show what would be published."""
    from common.hub.card import CARD, write
    from common.hub.package import check_access, check_tag, prepare
    from common.hub.upload import check_target
    from common.hub.upload import publish as upload
    from common.hub.verify import scored_corpus, verify_package

    require("plots")
    folder = Path(_single(arguments.output_dir, "the folder of a trained model"))
    check_tag(arguments.tag)
    package = prepare(folder, arguments.repo_id)
    if arguments.dry_run:
        print(package.read(CARD).decode(), end="")
        log("dry run: nothing was sent to the Hub or written")
        return
    if arguments.verify:
        scored_corpus(package.trained, arguments)  # fails before anything is published
    check_access(arguments.repo_id, package.trained.base["name"], package.trained.base["commit"])
    if not arguments.overwrite:
        check_target(arguments.repo_id, package.trained.facts, package, arguments.tag)
    if arguments.verify:
        outcome = verify_package(package, arguments.repo_id, arguments, items=arguments.items)
        log(f"checked: {outcome}")
    how = {"private": arguments.private, "tag": arguments.tag, "overwrite": arguments.overwrite}
    commit, new = upload(package, arguments.repo_id, **how)
    if os.access(folder, os.W_OK):
        if (folder / CARD).is_file() and not rendered(package, folder / CARD):
            warn(f"{folder / CARD} is replaced: cards are generated from the records, not edited by hand")
        write({name: content for name, content in package.files.items() if isinstance(content, bytes)}, folder)
    outcome = "published" if new else "already published, nothing was uploaded"
    log(f"{outcome}: {arguments.repo_id}, commit {commit}{f', tag {arguments.tag}' if arguments.tag else ''}")
    if arguments.verify:
        verify(arguments.repo_id, commit, arguments, arguments.items)


def rendered(package: Package, card: Path) -> bool:
    """Return whether a card is as rendered for this model, for whichever repository."""
    text = card.read_bytes()
    if text == package.read(card.name):
        return True
    named = re.search(rb'^model_id, revision = "([^"]+)"', text, re.MULTILINE)
    return bool(named) and text == package.project.render(package.trained, named[1].decode(errors="replace"))[card.name]


def verify(repo_id: str, revision: str | None, corpus: TableOptions, items: int) -> None:
    """Verify a published model and print the outcome."""
    from common.hub.verify import verify as verified
    from common.models.loading import with_revision

    repo_id, at = with_revision(repo_id)
    if at and revision not in (None, at):
        raise UserError(f"{revision!r}, but the name ends in {at!r}", key="--revision", expected="one revision")
    revision = revision or at
    print(plain(f"verified: {repo_id}: {verified(repo_id, revision, corpus, items=items)}"))


def space(arguments: SpaceArguments) -> None:
    """Create or update a Space, or with ``dry_run`` print its files."""
    from common.hub.package import check_access
    from common.hub.space import prepare, say_what_follows
    from common.hub.space import publish as upload

    repo_id = _single(arguments.repo_id, "the name of the Space, as user/name")
    named = "--adapter" if arguments.adapter else "--model"
    if not arguments.dry_run:
        check_access(repo_id, None, option=None)
    files = prepare(repo_id, arguments.adapter or arguments.model, named)
    if arguments.dry_run:
        for name in files.files:
            print(f"==> {name} <==\n{files.read(name).decode()}")
        log("dry run: nothing was sent to the Hub")
        return
    commit, new = upload(files, repo_id, private=arguments.private, overwrite=arguments.overwrite)
    log(f"{'published' if new else 'already published, nothing was uploaded'}: {repo_id}, commit {commit}")
    say_what_follows(files, repo_id, new=new)


def main() -> None:
    if COMPLETING in os.environ:
        sys.argv[1:] = typed(("card", "publish", "verify", "space"), at=2)
    command, rest = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    prog = f"python -m {MODULE} {command}"
    if command in ("-h", "--help"):
        print(COMMANDS)
    elif command == "card":
        card(parse(CardArguments, rest, prog=prog, examples=f"  {prog} output/sbic_llama2_7b/offensiveYN"))
    elif command == "publish":
        example = f"  {prog} output/sbic_llama2_7b/offensiveYN --repo_id {NAMESPACE}/llama2-7b-offensiveYN --tag v1"
        publishing = parse(PublishArguments, rest, prog=prog, examples=example)
        quiet_libraries()
        publish(publishing)
    elif command == "verify":
        example = f"  {prog} {NAMESPACE}/llama2-7b-offensiveYN --revision v1"
        verifying = parse(VerifyArguments, rest, prog=prog, examples=example)
        quiet_libraries()
        repo_id = _single(verifying.repo_id, "the id of a model on the Hub, as user/name")
        verify(repo_id, verifying.revision, verifying, verifying.items)
    elif command == "space":
        example = f"  {prog} {NAMESPACE}/offensive --adapter {NAMESPACE}/llama2-7b-offensiveYN@v1"
        paging = parse(SpaceArguments, rest, prog=prog, examples=example)
        quiet_libraries()
        space(paging)
    else:
        raise UserError(f"unknown command {command!r}", expected="card, publish, verify or space", fix="see --help")


if __name__ == "__main__":
    run(main)
