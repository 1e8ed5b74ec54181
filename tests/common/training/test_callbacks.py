from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from common.cli.console import duration
from common.cli.options import TrainingOptions
from common.training import callbacks, run
from common.training.callbacks import ProgressLog


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (95, "1 min 35 s"), (3600, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_a_duration_is_formatted(seconds, text):
    assert duration(seconds) == text


def test_the_time_left_follows_from_the_pace_after_the_first_steps(monkeypatch, capsys):
    """A continued run starts at step 10; its first three steps take 100 s each and do not count, the others 2 s each."""
    clock = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock[0])
    callback, state = ProgressLog(), SimpleNamespace(global_step=10, max_steps=50)
    callback.on_train_begin(None, state, None)
    for _ in range(10):
        state.global_step += 1
        clock[0] += 100 if state.global_step <= 13 else 2
        callback.on_step_end(None, state, None)
        callback.on_log(None, state, None, {"loss": 0.5})
    lines = capsys.readouterr().err.splitlines()
    assert "left" not in lines[2]
    assert lines[-1].endswith("step 20 of 50, loss 0.5000, about 1 min 0 s left")


def test_a_validation_logs_its_loss_and_the_metric_for_the_best_model(capsys):
    state, arguments = SimpleNamespace(global_step=4, max_steps=8), SimpleNamespace(metric_for_best_model="accuracy")
    logs = {"eval_loss": 0.25, "eval_accuracy": 0.75, "eval_runtime": 3.0}
    ProgressLog().on_log(arguments, state, None, logs)
    assert capsys.readouterr().err.rstrip().endswith("step 4 of 8, validation: accuracy 0.7500, loss 0.2500")


def test_options_added_later_identify_a_run_only_if_set():
    """Otherwise runs that earlier versions began could not be continued."""

    def identity(**options) -> dict:
        return run.identity(TrainingOptions(output_dir=Path("x"), learning_rate=0.1, **options), "data")

    assert "lr_scheduler_type" not in identity()
    assert identity(lr_scheduler_type="cosine")["lr_scheduler_type"] == "cosine"
    assert identity(save_total_limit=2) == identity()
