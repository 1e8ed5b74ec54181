"""Records may come from anybody's repository: with any value replaced by any other, each is read, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli.errors import UserError
from common.models.adapters import check_adapter_config
from common.models.loading import read_config
from common.results import finding as findings
from common.results import record as records
from common.results import rendering
from common.results.record import training_costs, training_facts
from common.runtime import files, run_folder
from common.training import checkpoints
from sbic_llama.model import description as annotator_file
from tests.rubbish import DEEP, WRONG_KINDS, check_refusal, dumped, everywhere, json_values, mutated, replaced

pytestmark = pytest.mark.properties
RUNS = Path(__file__).parents[1] / "hub" / "runs"


def shown_record(path: Path) -> None:
    record = records.read_record(path)
    rendering.table_lines([record])
    findings.about(record)


def shown_finding(path: Path) -> None:
    rendering.lines(findings.read_finding(path))
    rendering.markdown(findings.read_finding(path), [])


def used_training(path: Path) -> None:
    training_costs(training_facts(path.parent))


def used_annotator(path: Path) -> None:
    found = annotator_file.read(path)
    found.resolve_feature()
    if found.review is not None:
        found.review.for_share(0.1)
        found.review.for_accuracy(0.0, found.feature)


def used_adapter_config(path: Path) -> None:
    check_adapter_config(read_config(path.parent, path.name, "user/name"), "CAUSAL_LM", path)


ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "a/b",
    "revision": None,
    "r": 16,
}
KINDS: dict[str, tuple[Any, Callable[[Path], Any]]] = {
    "record.json": (json.loads((RUNS / "sbic_labels/evaluation/record.json").read_text()), shown_record),
    **{
        f"{path.stem}.json": (json.loads(path.read_text()), shown_finding)
        for path in (RUNS / "sbic_labels/evaluation/findings").glob("*.json")
    },
    "training.json": (json.loads((RUNS / "snli_full/training.json").read_text()), used_training),
    "annotator.json": (json.loads((RUNS / "sbic_labels/annotator.json").read_text()), used_annotator),
    "adapter_config.json": (ADAPTER_CONFIG, used_adapter_config),
}


def short(value: Any) -> Any:
    """The same with lists of at most three values: the others are checked as these are."""
    if isinstance(value, dict):
        return {name: short(inner) for name, inner in value.items()}
    return [short(inner) for inner in value[:3]] if isinstance(value, list) else value


def check(path: Path, data: bytes, read: Callable[[Path], Any]) -> None:
    path.write_bytes(data)
    try:
        read(path)
    except UserError as error:
        check_refusal(error, path)


@pytest.mark.parametrize("name", KINDS)
def test_the_records_of_these_tests_are_read(tmp_path, name):
    whole, read = KINDS[name]
    (tmp_path / name).write_bytes(dumped(whole))
    read(tmp_path / name)


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_any_value_in_place_of_another(tmp_path, name, data):
    whole, read = KINDS[name]
    check(tmp_path / name, dumped(data.draw(replaced(whole))), read)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_value_replaced_by_each_kind(tmp_path, name):
    whole, read = KINDS[name]
    # A curve of another length is refused as such: its points are replaced in a whole one.
    values = whole if name == "annotator.json" else short(whole)
    for value in everywhere(values, WRONG_KINDS):
        check(tmp_path / name, dumped(value), read)


@pytest.mark.parametrize("name", KINDS)
def test_no_json(tmp_path, name):
    whole, read = KINDS[name]
    for data in (
        b"",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        DEEP.encode(),
        b'{"schema": 1' + b"0" * 5000 + b"}",
        dumped(whole)[:-9],
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as error:
            read(tmp_path / name)
        check_refusal(error.value, tmp_path / name)


@given(data=st.data())
def test_a_manifest_of_anything_makes_no_checkpoint(tmp_path, data):
    folder = tmp_path / "checkpoint-2"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "trainer_state.json").write_text("{}")
    whole = checkpoints._digests(folder)
    written = data.draw(st.one_of(replaced(whole).map(dumped), mutated(dumped(whole))))
    (folder / checkpoints.MANIFEST).write_bytes(written)
    sizes = {name: (folder / name).stat().st_size for name in whole}  # as earlier versions wrote
    read = json_or_none(written)
    if isinstance(read, dict):
        read = {
            name: whole.get(name) if type(one) is int and one == sizes.get(name) else one for name, one in read.items()
        }
    found = checkpoints.last_intact(tmp_path)
    assert (found == folder) == (read == whole)


@given(data=st.data())
def test_a_mark_of_anything_is_this_run_or_refused(tmp_path, data):
    identity = {"arguments": {"seed": 1}, "data": "abc"}
    (tmp_path / "checkpoint-2").mkdir(exist_ok=True)
    written = data.draw(st.one_of(replaced(identity).map(dumped), mutated(dumped(identity)), json_values.map(dumped)))
    (tmp_path / run_folder.IDENTITY).write_bytes(written)
    try:
        run_folder.claim(tmp_path, identity, {}, finished="done")
    except UserError as error:
        check_refusal(error, tmp_path)
    else:
        found = json_or_none(written)
        assert {name: found.get(name) for name in {*found, *identity}} == {
            name: identity.get(name) for name in {*found, *identity}
        }


def json_or_none(data: bytes) -> Any:
    try:
        return files.loads(data)
    except ValueError:
        return None
