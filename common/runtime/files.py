"""Atomic writes and strict JSON: a file or folder is complete, or it is not there."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Lt

from common.cli.errors import UserError, shown, storage_problem


def atomic_write(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Yield a temporary path beside ``path`` and rename it to ``path`` if the block succeeds.

    Readers see the old file or the new one, complete. If the block fails, the old file stays.
    """
    return _renamed_to(Path(path), folder=False)


def atomic_folder(path: Path) -> contextlib.AbstractContextManager[Path]:
    """Like :func:`atomic_write`, for a folder that does not exist yet."""
    return _renamed_to(Path(path), folder=True)


@contextlib.contextmanager
def _renamed_to(path: Path, *, folder: bool) -> Iterator[Path]:
    if not path.name:  # "." or "/"
        raise UserError("not a name", file=path, expected=f"that of a {'folder' if folder else 'file'} to write")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir() if folder else part.touch(exist_ok=False)
    try:
        yield part
        with _writable(path):
            for each in (part, *part.rglob("*")):
                _sync(each)
            # The writer's 0600 would keep colleagues on a shared disk from reading it.
            part.chmod(readable_mode(0o777 if folder else 0o666))
            part.replace(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True) if folder else part.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(folder: Path, *, fix: str) -> Iterator[None]:
    """Turn any library's error about a full or read-only disk into a ``UserError`` for ``folder``."""
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
    """Check, before hours of work, that the disk has ``needed`` bytes free for ``what`` it will store."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"only {free / 1e6:,.0f} MB are free on this disk",
            file=folder,
            expected=f"about {needed / 1e6:,.0f} MB for {what}",
            fix="free some space, or choose an --output_dir on another disk",
        )


def readable_mode(mode: int = 0o666) -> int:
    """Return the mode of a newly created file, for files created with stricter permissions."""
    umask = os.umask(0)
    os.umask(umask)
    return mode & ~umask


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", file=path, fix="choose another output path") from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Kind = TypeVar("Kind")
# A count, size, time, or score: values beyond these bounds, and NaN, are errors.
Number = Annotated[float, Gt(-(10**18)), Lt(10**18)]
Count = Annotated[int, Ge(0), Lt(10**18)]


def read_json(kind: type[Kind], path: Path, *, what: str, fix: str | None = None) -> Kind:
    """Read an untrusted JSON file and validate it against a dataclass or TypedDict (pydantic's strict mode).

    Give the class a ``__pydantic_config__`` to forbid other keys. ``what`` names the expected content, as "a run record".

    Raises:
        UserError: Unreadable, not JSON, or other content; the first wrong key is named.
    """
    from pydantic import ValidationError

    try:
        return validated(kind, path.read_bytes())
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", file=path) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f" (found {shown(first['input'], 30)})"
        problem = f"not {what}: {where + ': ' if where else ''}{first['msg']}{given}"
        raise UserError(problem, file=path, fix=fix) from None
    except ValueError as error:
        raise UserError(f"not {what}: {error}", file=path, fix=fix) from None


def validated(kind: Any, data: bytes) -> Any:
    """Parse JSON and validate it against a type; raise ``ValueError`` if it does not fit."""
    loads(data)
    return _adapter(kind).validate_json(data, strict=True)


@functools.cache  # building one takes longer than most files take to validate
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


DEEPEST = 100  # levels: Python's encoder fails on some that its parser still accepts
_HALF = re.compile(r"[\ud800-\udfff]")


def loads(text: str | bytes) -> Any:
    """Parse JSON strictly; raise ``ValueError`` for invalid JSON and for what :func:`parse_json` reports."""
    value, problem = parse_json(text.decode("utf-8") if isinstance(text, bytes) else text)
    if problem:
        raise ValueError(problem)
    return value


def parse_json(text: str) -> tuple[Any, str | None]:
    """Return the value of a JSON text, as far as it can be read, and what is wrong with it.

    Besides invalid JSON, these are wrong: a duplicate name in an object, since only one of its values is kept; half of a
    surrogate pair (``\\ud83d`` alone), which UTF-8 cannot encode and U+FFFD replaces; nesting deeper than :data:`DEEPEST`.
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
    except (ValueError, RecursionError) as error:  # ValueError: also a number with thousands of digits
        return None, f"not JSON: {getattr(error, 'msg', error)}"
    if text.count("[") + text.count("{") > DEEPEST:
        brackets = re.findall(r"[\[\]{}]", re.sub(r'"(?:\\.|[^"\\])*"', "", text))
        if max(itertools.accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0) > DEEPEST:
            return None, f"nested deeper than {DEEPEST} levels"
    if re.search(r"\\u[dD][89a-fA-F]", text):
        text = json.dumps(value, ensure_ascii=False)
        if _HALF.search(text):
            return json.loads(_HALF.sub("\ufffd", text)), "half of a surrogate pair"
    return value, f"duplicate name {shown(twice[0])} in an object" if twice else None
