"""The loaders of SNLI and the challenge sets: a file with any flaw is loaded, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tables.report import fingerprint
from snli_roberta.adversarial import challenge_sets
from snli_roberta.data import chaosnli
from snli_roberta.data.corpus import LABELS, NO_LABEL
from snli_roberta.training.arguments import CorpusArguments
from tests.rubbish import check, dumped, mutated, replaced, texts

pytestmark = pytest.mark.properties


def first_lines(miniature: Path, name: str, count: int = 3) -> list[bytes]:
    return (miniature / name).read_bytes().splitlines(keepends=True)[:count]


def used_split(split: Any) -> None:
    report = split.report
    assert report.read == report.kept + sum(report.dropped.values()), "rows in = rows kept + rows reported"
    assert len(split.pairs) == report.kept
    split.fingerprint()
    for pair in (*split.pairs, *split.without_gold):
        assert pair.label == NO_LABEL or LABELS[pair.label]
        assert pair.premise and pair.hypothesis
        fingerprint([pair.premise, pair.hypothesis, pair.id, pair.annotator_labels])


def read_dev(path: Path) -> Any:
    (split,) = CorpusArguments(data_dir=path.parent).load("dev")
    return split


READERS = {
    "snli_1.0/snli_1.0_dev.jsonl": (read_dev, used_split),
    "chaosnli/chaosNLI_snli.jsonl": (chaosnli.read_items, chaosnli.item_fingerprint),
    "breaking_nli/dataset.jsonl": (
        challenge_sets.read_breaking_nli,
        lambda items: fingerprint([i.pair.id, i.pair.premise, i.category] for i in items),
    ),
}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_json_lines_with_another_value(miniature, tmp_path, name, data):
    lines = first_lines(miniature, name)
    place = data.draw(st.integers(0, len(lines) - 1))
    value = data.draw(replaced(json.loads(lines[place])))
    lines[place] = dumped(value) + b"\n"
    check(tmp_path / Path(name).name, b"".join(lines), *READERS[name])


@pytest.mark.parametrize("name", [*READERS, "hans/heuristics_evaluation_set.txt"])
@given(data=st.data())
def test_files_with_other_bytes(miniature, tmp_path, name, data):
    read, used = READERS.get(
        name,
        (challenge_sets.read_hans, lambda cases: fingerprint([c.pair.id, c.pair.premise, c.subcase] for c in cases)),
    )
    check(tmp_path / Path(name).name, data.draw(mutated(b"".join(first_lines(miniature, name)))), read, used)


@given(cells=st.lists(texts, min_size=1, max_size=12))
def test_hans_with_other_cells(miniature, tmp_path, cells):
    header, line, *_ = first_lines(miniature, "hans/heuristics_evaluation_set.txt")
    fields = line.decode().rstrip("\n").split("\t")
    for place, cell in enumerate(cells[: len(fields)]):
        fields[place] = cell
    data = header + "\t".join(fields).encode()
    check(tmp_path / "h.txt", data, challenge_sets.read_hans, lambda cases: [c.pair for c in cases])
