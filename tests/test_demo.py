"""What `make demo` leaves in output/demo: the models learned, and beat what they have to beat. Skipped before a demo has run."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.results.record import RunRecord, read_record

DEMO = Path(__file__).parents[1] / "output" / "demo"
# Measured on the test splits: balanced accuracy .959 and .949 (SNLI, full and LoRA), 1.000 and .971 (SBIC), set F1 .896.
# CPUs round differently, so the thresholds leave about .03.
LEAST = {
    "SNLI": ("balanced_accuracy", 0.92),
    "SBIC hasBiasedImplication": ("balanced_accuracy", 0.96),
    "SBIC offensiveYN": ("balanced_accuracy", 0.94),
    "SBIC targetMinority": ("set_f1", 0.86),
}
MARGIN = 0.03  # by which a trained model beats the best baseline; counting words must not be enough

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DEMO.is_dir(), reason="make demo has not run")]


@pytest.fixture(scope="module")
def records() -> dict[str, list[RunRecord]]:
    """Task → its records."""
    tasks: dict[str, list[RunRecord]] = {}
    for path in sorted((DEMO / "records").glob("*.json")):
        record = read_record(path)
        name = next(name for name in LEAST if record.task.startswith(name))
        tasks.setdefault(name, []).append(record)
    return tasks


@pytest.mark.parametrize("task", LEAST)
def test_the_miniature_can_be_learned_and_not_by_counting_words(records, task):
    metric, least = LEAST[task]
    trained, others = [], []
    for record in records[task]:
        assert record.miniature
        (trained if record.storage_bytes is not None else others).append(record.metrics[metric]["value"])
    assert len(trained) == (2 if task == "SNLI" else 1)
    assert len(others) >= 3  # the untouched base among them
    assert min(trained) >= least
    assert min(trained) - max(others) >= MARGIN


@pytest.mark.parametrize("name", ["report.html", "trust/trust.html", "annotated.csv"])
def test_the_files_that_the_demo_names_exist(name):
    assert (DEMO / name).stat().st_size > 1000
