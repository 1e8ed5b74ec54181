"""Writing that can be interrupted: a file or folder is complete, or it is not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Lt

from common.cli.errors import UserError, shown, storage_problem


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write a file to, and renames it to ``path`` when the block ends well.

    Readers see the old file or the new one, whole. When the block fails, the old file is left as it was.

    Raises:
        UserError: The folder can't be written to.
    """
    path = Path(path)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    part = Path(name)
    try:
        yield part
        with _writable(path):
            _sync(part)
            # mkstemp's 0600 would keep colleagues on a shared disk from reading the file.
            part.chmod(readable_mode())
            part.replace(path)
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """The same for a folder that does not exist yet: filled beside ``path``, then renamed to it."""
    path = Path(path)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield part
        with _writable(path):
            for file in part.rglob("*"):
                _sync(file)
            part.chmod(0o777 & ~_umask())
            part.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def disk_errors(folder: Path, *, fix: str) -> Iterator[None]:
    """Whatever libraries raise in the block where ``folder``'s disk is full or read-only becomes one line for the user.

    Args:
        folder: Where they write.
        fix: What to do once there is room.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        problem = storage_problem(error)
        if problem is None:
            raise
        raise UserError(f"can't be written: {problem}", file=folder, fix=fix) from error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Checks before hours of work that a disk can hold what they leave.

    Args:
        folder: Where it is left; it is there.
        needed: Bytes.
        what: What needs them, in words.

    Raises:
        UserError: It can't.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{free / 1e6:,.0f} MB are free on this disk",
            file=folder,
            expected=f"about {needed / 1e6:,.0f} MB, for {what}",
            fix="make room, or choose an --output_dir on another disk",
        )


def readable_mode() -> int:
    """The mode that a new file would get here, for files that were made with a closer one."""
    return 0o666 & ~_umask()


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", file=path, fix="choose another output path") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Kind = TypeVar("Kind")
# A count, size, time or score. Beyond the bounds it is none of these, and NaN lies within no bounds.
Number = Annotated[float, Gt(-(10**18)), Lt(10**18)]
Count = Annotated[int, Ge(0), Lt(10**18)]


def read_json(kind: type[Kind], path: Path, *, what: str, fix: str | None = None) -> Kind:
    """Read a JSON file that may come from anybody and check it against a dataclass or TypedDict.

    Keys are checked as pydantic does in strict mode; give the class a ``__pydantic_config__`` to forbid others.

    Args:
        kind: What the file must hold.
        path: The file.
        what: What it should be, as "a run record".
        fix: What the user can do about a bad one.

    Raises:
        UserError: Unreadable, not JSON, or another content; the first wrong key is named.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        text = path.read_bytes()
        loads(text)
        return TypeAdapter(kind).validate_json(text, strict=True)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=path) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f" (found {shown(first['input'], 30)})"
        problem = f"not {what}: {where + ': ' if where else ''}{first['msg']}{given}"
        raise UserError(problem, file=path, fix=fix) from None
    except ValueError as error:
        raise UserError(f"not {what}: {error}", file=path, fix=fix) from None


DEEPEST = 100  # levels; what Python's parser just takes, its writer may not
_HALF = re.compile(r"[\ud800-\udfff]")


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is none, or one of those that :func:`read` names.
    """
    value, problem = read(text.decode("utf-8") if isinstance(text, bytes) else text)
    if problem:
        raise ValueError(problem)
    return value


def read(text: str) -> tuple[Any, str | None]:
    """The value of a JSON text as far as it can be read, and what is wrong with it, if anything is.

    Wrong is, besides what is no JSON: a name that stands twice in an object, as only one of its values is kept; half of a surrogate
    pair (``\\ud83d`` alone), which no file can hold and U+FFFD stands for then; and nesting deeper than :data:`DEEPEST`.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
            twice.append(name)
        return values

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        return None, f"not JSON: {getattr(error, 'msg', error)}"
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        return None, f"nested deeper than {DEEPEST} levels"
    if re.search(r"\\u[dD][89a-fA-F]", text):
        mended = _mended(value)
        if mended != value:
            return mended, "half of a surrogate pair"
    return value, f"{shown(twice[0])} stands twice in an object" if twice else None


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (list, dict))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(inner) for name, inner in value.items()}
    return value
