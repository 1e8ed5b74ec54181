"""MD-Agreement (Leonardelli et al. 2021): tweets that five named annotators called offensive or not, as in Le-Wi-Di 2023."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.cli.errors import UserError, shown
from common.runtime import files
from sbic_llama.data.corpus import clean

NAMES = ("Offensive", "Not offensive")


@dataclass(frozen=True)
class Item:
    """A tweet and what its annotators said: annotator → index into :data:`NAMES`."""

    id: str
    text: str
    domain: str
    annotations: dict[str, int]

    @property
    def majority(self) -> int:
        """The commonest label; of equals, offensive."""
        counts = Counter(self.annotations.values())
        return 0 if counts[0] >= counts[1] else 1

    @property
    def agreeing(self) -> int:
        """How many annotators gave the majority's label."""
        return Counter(self.annotations.values())[self.majority]


def read_items(path: Path) -> list[Item]:
    """Reads ``MD-Agreement_{train,dev,test}.json``.

    Raises:
        UserError: No such file, not that format, or an item that does not fit, by its key.
    """
    try:
        values = files.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", file=path, fix="check the path") from None
    except ValueError as error:
        raise UserError(str(error), file=path, expected="MD-Agreement's JSON file") from None
    if not isinstance(values, dict) or not values:
        raise UserError("not MD-Agreement", file=path, expected="an object of numbered items")
    return [_item(path, key, value) for key, value in values.items()]


def _item(path: Path, key: str, value: object) -> Item:
    def wrong(problem: str, expected: str) -> UserError:
        return UserError(problem, file=path, key=f"item {shown(key)}", expected=expected)

    if not isinstance(value, dict) or not isinstance(value.get("text"), str) or not clean(value["text"]):
        raise wrong("no text", "an object with text, annotations and annotators")
    for name in ("annotations", "annotators"):
        if not isinstance(value.get(name), str) or not value[name].strip():
            raise wrong(f"no {name}", 'a text, as "0,1,1" for annotations')
    said, people = ([part.strip() for part in value[k].split(",")] for k in ("annotations", "annotators"))
    if len(said) != len(people) or not all(people):
        raise wrong(f"{len(said)} annotations of {len(people)} annotators", "one annotation an annotator")
    if len(set(people)) < len(people):
        raise wrong("an annotator stands there twice", "each annotator once")
    if set(said) - {"0", "1"}:
        raise wrong(f"annotations {shown(value['annotations'])}", "0 (not offensive) or 1 (offensive) each")
    domain = (value.get("other_info") or {}).get("domain") if isinstance(value.get("other_info") or {}, dict) else None
    # 1 is offensive there; here offensive is the first label.
    return Item(
        key,
        clean(value["text"]),
        str(domain or "?"),
        {who: 1 - int(one) for who, one in zip(people, said, strict=True)},
    )
