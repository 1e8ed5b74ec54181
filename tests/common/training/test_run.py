"""A stopped training continues only with steps of the same items."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.runtime import hardware
from common.training.run import RunContext, already_finished, identity
from snli_roberta.training.arguments import TrainArguments


def run(size: int = 16, passes: int = 1, **more: object) -> dict[str, object]:
    settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": passes, "seed": 33, "data": "d41d"}
    return settings | more


def claim(folder: Path, processes: int, settings: dict, *, fixed_by: str | None = None) -> bool:
    return already_finished(folder, settings, RunContext(processes, "fp32"), fixed_by=fixed_by)


@pytest.fixture
def stopped(tmp_path):
    """Return a run of one process that has a checkpoint."""
    claim(tmp_path, 1, run())
    (tmp_path / "checkpoint-31").mkdir()
    return tmp_path


def test_a_run_that_died_before_its_first_checkpoint_begins_again_beside_its_logs(tmp_path):
    claim(tmp_path, 1, run())
    (tmp_path / "runs").mkdir()  # TensorBoard's
    assert not claim(tmp_path, 1, run(8)), "with other settings, too"
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match="the folder is not empty and holds no run"):
        claim(tmp_path, 1, run())


@pytest.mark.parametrize("division", [(2, 8, 1), (4, 4, 1), (1, 4, 4), (2, 4, 2)])
def test_it_continues_where_as_many_items_are_taken(stopped, division):
    processes, size, passes = division
    assert not claim(stopped, processes, run(size, passes))
    assert not claim(stopped, 1, run())
    with pytest.raises(UserError, match="with LoRA dropout, only the same processes and batches give the same weights"):
        claim(stopped, processes, run(size, passes), fixed_by="LoRA dropout")


@pytest.mark.parametrize("division", [(2, 16, 1), (1, 16, 2), (1, 8, 1), (3, 5, 1)])
def test_it_is_refused_where_fewer_or_more_are_taken(stopped, division):
    """Continued by twice as many processes, it would end after half of its items and call itself finished."""
    processes, size, passes = division
    items = f"{processes * size * passes:,} items \\({processes} × {size} × {passes}\\)"
    with pytest.raises(UserError, match=rf"takes steps of 16 items \(1 × 16 × 1\), this command {items}") as error:
        claim(stopped, processes, run(size, passes))
    assert (
        "Continue it with accelerate launch --num_processes 1 and --per_device_train_batch_size 16 "
        "--gradient_accumulation_steps 1"
    ) in str(error.value)
    assert ("or with --per_device_train_batch_size 8 here" in str(error.value)) == (processes * passes == 2)
    (stopped / "training.json").touch()
    if (size, passes) == (16, 1):
        assert claim(stopped, processes, run()), "a finished run takes no steps"


def test_the_number_of_processes_of_an_earlier_versions_run_is_counted(stopped):
    (stopped / "run.json").write_text(json.dumps(run() | {"precision": "fp32"}))
    assert not claim(stopped, 1, run())
    for rank in (0, 1):
        (stopped / "checkpoint-31" / f"rng_state_{rank}.pth").touch()
    assert not claim(stopped, 2, run())
    with pytest.raises(UserError, match=r"takes steps of 32 items \(2 × 16 × 1\), this command 16 items"):
        claim(stopped, 1, run())


def test_other_weights_in_the_bases_folder_are_another_run(stopped):
    first, other = ({"base_commit": letter * 64} for letter in "ab")
    assert not claim(stopped, 1, run(**first)), "an earlier version did not look into a folder"
    (stopped / "run.json").write_text(json.dumps(run(precision="fp32", **first)))
    assert not claim(stopped, 1, run(**first))
    with pytest.raises(UserError, match="holds another run: base_commit changed"):
        claim(stopped, 1, run(**other))


def test_a_sharded_run_is_not_continued_otherwise(stopped, monkeypatch):
    """The optimizer's state is in another file, which would be left out."""
    monkeypatch.setattr(hardware, "shards", lambda: True)
    with pytest.raises(UserError, match="sharded was False and is True"):
        claim(stopped, 1, run())
    with pytest.raises(UserError, match="with a sharded model, only the same processes"):
        claim(stopped, 2, run(8))


def test_every_argument_that_changes_the_weights_identifies_a_run(tmp_path):
    """A seed above all: two runs that differ in nothing else would be one."""
    same = {
        "report_to",
        "save_total_limit",
        "estimate_only",
        "push_to_hub",
        "hub_model_id",
        "hub_private",
        "hub_overwrite",
    }
    arguments = TrainArguments(output_dir=tmp_path, learning_rate=1e-3, method="full")
    later = {"lr_scheduler_type", "dataset_columns", "dataset_splits"}  # recorded where they are not the defaults
    names = {field.name for field in dataclasses.fields(arguments)} - {"output_dir", *later, *same}
    assert identity(arguments, "d41d").keys() == names | {"data"}
    for name, value in {
        "seed": 34,
        "sample_seed": 34,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.0,
    }.items():
        assert identity(dataclasses.replace(arguments, **{name: value}), "d41d") != identity(arguments, "d41d")


@pytest.mark.parametrize(("name", "value"), [("seed", 34), ("data", "other")])
def test_another_run_is_refused_whatever_its_batches(stopped, name, value):
    for processes, settings in ((1, run()), (2, run(8))):
        with pytest.raises(UserError, match=f"holds another run: {name} was"):
            claim(stopped, processes, settings | {name: value})
