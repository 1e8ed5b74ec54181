"""Put a page to try published models on the Hub: a Gradio Space that starts a command of this project."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from common.cli.console import log, warn
from common.cli.errors import UserError, counted
from common.cli.extras import require
from common.hub.card import CARD, Trained, code, environment
from common.hub.package import Contents, Publication, ask, check_base, check_name
from common.hub.upload import Upload, check_unchanged
from common.hub.verify import check_download
from common.models.loading import check_place, local_folder, with_revision
from common.results.record import git_commit
from common.runtime.project import DISTRIBUTION, SOURCE

APP, REQUIREMENTS = "app.py", "requirements.txt"
EXTRAS = ("app", "tables")  # of the package: pages, and the files that can be uploaded to them
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Published:
    """A published model at one of its commits."""

    repo_id: str
    commit: str
    trained: Trained
    project: Publication
    restricted: tuple[str, ...]  # those of it and its base that are private or gated

    @property
    def place(self) -> str:
        return f"{self.repo_id}@{self.commit}"


@dataclass(frozen=True)
class Space(Contents):
    """A Space's files, all rendered."""

    page: str  # the module that serves it
    models: tuple[Published, ...]

    kind = "space"
    owned = (CARD, APP, REQUIREMENTS)
    ours = re.compile(r"Publish the page of \S+ for ")

    @property
    def title(self) -> str:
        return f"Publish the page of {self.page} for {', '.join(model.repo_id for model in self.models)}"


def prepare(repo_id: str, names: Sequence[str], option: str) -> Space:
    """Check the published models that were given with ``option``, and render a Space for them; nothing is sent to the Hub.

    Each model stays at the commit that its name means now, and each package at the version installed here.
    """
    check_name(repo_id, None)
    require(*EXTRAS)
    models = tuple(map(published, names))
    for model in models:
        page, own = model.project.PAGE
        if own != option:
            problem = f"trained by {model.trained.facts['project']}"
            raise UserError(problem, file=model.repo_id, key=option, fix=f"give its models with {own}")
    models[0].project.check_page([model.place for model in models])
    command = shlex.join(["python", "-m", "common.hub", "space", repo_id, option, *names])
    space = Space(_files(repo_id, models, command), page, models)
    log(f"{counted(len(space.files), 'file')} for the Space {repo_id}:")
    for path in sorted(space.files):
        log(f"{space.size(path):>14,}  {path}")
    return space


def published(name: str) -> Published:
    """Download a published model and check it, which may be anybody's."""
    from huggingface_hub import HfApi

    check_place(name)
    repo_id, revision = with_revision(name)
    if Path(repo_id).is_dir():
        fix = f"run python -m common.hub publish {name} --repo_id user/name, and give that name"
        raise UserError("a folder on this machine, which a Space cannot read", file=name, fix=fix)
    api = HfApi()
    info = ask(lambda: api.model_info(repo_id, revision=revision), repo_id, revision)
    trained, project = check_download(local_folder(repo_id, str(info.sha)), repo_id)
    base, commit = trained.base["name"], trained.base["commit"]
    check_base(str(base), commit)
    infos = {repo_id: info}
    if commit:
        infos[str(base)] = ask(lambda: api.model_info(str(base), revision=commit), str(base), commit)
    restricted = tuple(name for name, info in infos.items() if info.private or info.gated)
    return Published(repo_id, str(info.sha), trained, project, restricted)


def publish(space: Space, repo_id: str, *, private: bool, overwrite: bool) -> tuple[str, bool]:
    """Create or update the Space in one commit; return the commit that holds it, and whether it is new."""
    upload = Upload(space, repo_id, private=private, check=None if overwrite else check_space)
    return ask(upload.run, repo_id), upload.new


def check_space(api: Any, repo_id: str, head: str, present: Mapping[str, Any]) -> None:
    """Refuse to replace a Space that this project did not publish, or changes since the last publication."""
    commits = api.list_repo_commits(repo_id, revision=head, repo_type=Space.kind)
    if len(commits) == 1 and set(present) <= {".gitattributes", CARD}:
        return  # as the Hub creates it
    if not any(Space.ours.match(commit.title) for commit in commits):
        problem, fix = "not a Space of this project", "choose another name, or replace its files with --overwrite"
        raise UserError(problem, file=repo_id, expected="a new Space, or one that this command published", fix=fix)
    check_unchanged(api, repo_id, head, present, Space)


def say_what_follows(space: Space, repo_id: str, *, new: bool) -> None:
    """Log where the page is, or will be, and what its owner has to set."""
    from huggingface_hub import constants

    building = ", which the Hub now builds: this takes some minutes" if new else ""
    log(f"the page: {constants.ENDPOINT}/spaces/{repo_id}{building}")
    if restricted := sorted({name for model in space.models for name in model.restricted}):
        names = " and ".join(restricted)
        warn(f"{names}: private or gated; add a secret HF_TOKEN that may read this to the Space's settings")


def _files(repo_id: str, models: Sequence[Published], command: str) -> dict[str, Path | bytes]:
    """Render the files of a Space by name. ``command`` is the one that makes them."""
    from huggingface_hub import SpaceCardData

    page, option = models[0].project.PAGE
    bases = dict.fromkeys(str(model.trained.base["name"]) for model in models if model.trained.base["commit"])
    data = SpaceCardData(
        title=repo_id.partition("/")[2],
        sdk="gradio",
        sdk_version=metadata.version("gradio"),
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file=APP,
        license="apache-2.0",  # of this project's code; the models' licenses are on their cards
        models=[*(model.repo_id for model in models), *bases],
    )
    names = [model.place for model in models]
    values = {"repo_id": repo_id, "page": page, "models": models, "source": SOURCE, "command": command}
    text = environment(_TEMPLATES, Path(repo_id), markdown=True).get_template("space.md.jinja").render(**values)
    app = code(_TEMPLATES / "space.py.jinja", Path(repo_id), page=page, option=option, names=map(json.dumps, names))
    files = {
        CARD: f"---\n{data.to_yaml().strip()}\n---\n\n{text.strip()}",
        APP: app,
        REQUIREMENTS: "\n".join(requirements()),
    }
    return {name: f"{text}\n".encode() for name, text in files.items()}


def requirements() -> list[str]:
    """Return pip's requirements: the package at the commit that runs, and what it needs in the versions installed here."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    try:
        needed = map(Requirement, metadata.requires(DISTRIBUTION) or ())
    except metadata.PackageNotFoundError:
        raise UserError(f"{DISTRIBUTION} is not installed", fix="run pip install --no-deps -e .") from None
    names = (each.name for each in needed if each.marker is None or _applies(each.marker, EXTRAS))
    package = f"{DISTRIBUTION}[{','.join(EXTRAS)}] @ git+{SOURCE}@{installed_commit()}"
    # Without a local version such as +cpu, which only an index of its own has.
    return [package, *(f"{name}=={Version(metadata.version(name)).public}" for name in sorted(names, key=str.casefold))]


def _applies(marker: Any, extras: Iterable[str]) -> bool:
    return any(marker.evaluate({"extra": extra}) for extra in extras)


def installed_commit() -> str:
    """Return the commit of the code that runs: of the checkout, or of the git address that it was installed from."""
    commit, _, changes = git_commit().partition("+")
    if commit == "unknown":
        origin = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")  # PEP 610; none for a wheel
        commit = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", commit)
    if commit == "unknown":
        fix = f"run it from a checkout, or run pip install git+{SOURCE}"
        raise UserError("the commit of the code is unknown, and a Space installs one", fix=fix)
    if changes:
        warn("the code has changes that are not committed; the Space gets the last commit without them")
    log(f"the Space installs commit {commit[:12]}, which must be on {SOURCE}")
    return commit
