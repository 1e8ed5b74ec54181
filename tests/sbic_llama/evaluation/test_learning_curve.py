"""Learning curves: which texts a size has, the trainings and their continuation, and what the finding says."""

from __future__ import annotations

import csv
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.results import pictures, rendering
from common.results.finding import Growth, read_finding
from common.results.record import read_record
from common.stats.agreement import EVERYWHERE
from sbic_llama import learning_curve as command
from sbic_llama.data.corpus import Post
from sbic_llama.data.features import FEATURES
from sbic_llama.evaluation import learning_curve
from sbic_llama.evaluation.curve_finding import curve_finding
from sbic_llama.evaluation.learning_curve import Scored, default_sizes, nested_order
from sbic_llama.training.arguments import TrainArguments
from tests import forked

CODEBOOK = """
name: mood
question: Is the author glad?
instruction: Decide whether the author is glad.
labels: {Glad: the author is happy, Sad: the author is not}
columns: {text: text, label: mood, annotator: coder, item: id}
"""
WORDS = ["--learning_rate", "2e-3", "--num_train_epochs", "4", "--evaluations", "2", "--sizes", "20", "40"]
WORDS += ["--logging_steps", "1"]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> list[str]:
    """Return the options that name a codebook and a table of 150 texts, each labeled by two people."""
    folder, draw = tmp_path_factory.mktemp("table"), random.Random(0)
    (folder / "codebook.yaml").write_text(CODEBOOK)
    things = [
        "river",
        "bus",
        "garden",
        "letter",
        "kitchen",
        "road",
        "song",
        "winter",
        "market",
        "bridge",
        "lamp",
        "boat",
    ]
    with open(folder / "table.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "coder", "mood"])
        for number in range(150):
            mood = ("Glad", "Sad")[number % 3 == 0]
            word = {"Glad": ("love", "enjoy"), "Sad": ("hate", "fear")}[mood][draw.randrange(2)]
            text = f"{' '.join(draw.sample(things, 6))} we {word} it"
            for coder in ("ann", "bo"):
                rows.writerow([number, text, coder, mood if draw.random() < 0.9 else "Sad"])
    return ["--codebook", str(folder / "codebook.yaml"), "--data", str(folder / "table.csv")]


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr("common.runtime.child_process.call", lambda function, argument, *, preload: function(argument))
    monkeypatch.setattr(sys, "argv", ["x", *words])
    command.main()


@pytest.fixture(scope="module")
def made(table, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("curve") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(monkeypatch, *table, *WORDS, "--output_dir", str(folder))
    return folder


def trainings(folder: Path) -> dict[str, int]:
    return {path.parents[1].name: path.stat().st_mtime_ns for path in folder.glob("size_*/mood/training.json")}


def metrics(folder: Path) -> list[dict]:
    return [read_record(path).metrics for path in sorted(folder.glob("mood-size-*.json"))]


def finding_in(folder: Path):
    (path,) = (folder / "findings").glob("*.json")
    return read_finding(path)


def test_subsets_are_nested_and_stratified_and_have_every_label():
    feature = FEATURES["hasBiasedImplication"]
    posts = [Post(f"text {number}", "", number % 10 == 0, None, ()) for number in range(500)]
    order = nested_order(posts, feature, 33)
    assert sorted(post.text for post in order) == sorted(post.text for post in posts)
    for size in (2, 50, 100, 333):
        counts = Counter(post.biased for post in order[:size])
        assert abs(counts[True] - size / 10) <= 1
        assert counts[True]
        assert counts[False]
    assert order == nested_order(posts, feature, 33)
    assert order != nested_order(posts, feature, 34)


@pytest.mark.parametrize(
    ("available", "sizes"), [(210, (50, 100, 210)), (101, (50, 101)), (400, (50, 100, 200, 400)), (60, (50, 60))]
)
def test_sizes_double_up_to_all(available, sizes):
    assert default_sizes(available) == sizes


@pytest.mark.slow
def test_a_curve_is_trained_scored_and_shown(made):
    assert trainings(made).keys() == {"size_00020", "size_00040"}
    assert not list(made.glob("size_*/mood/checkpoint-*")), "they could fill a disk"
    records = [read_record(path) for path in sorted(made.glob("mood-size-*.json"))]
    titles = [f"{kind}, {size} labeled texts" for size in (20, 40) for kind in ("TF-IDF", "QLoRA")]
    assert sorted(record.title for record in records) == sorted(titles)
    rendering.by_task(records)  # all were scored on the same texts
    steps = [record.settings["best"]["step"] for record in records if record.storage_bytes]
    assert all(step <= 12 for step in steps)
    finding = finding_in(made)
    assert finding.facts["sizes"] == [20, 40]
    assert "2 sizes were tried, and a fitted curve needs at least 4" in " ".join(finding.summary)
    assert "Krippendorff's alpha between the model and people" in " ".join(finding.summary)
    score, agreement = (part for part in finding.parts if isinstance(part, Growth))
    assert not score.curve
    assert list(score.series) == ["adapter", "TF-IDF"]
    assert list(agreement.series) == ["model and people", "people among themselves"]
    assert (made / "learning_curve.png").is_file()
    assert (made / "agreement.png").is_file()
    assert "How many labels are enough?" in (made / "learning_curve.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_second_time_nothing_is_trained_and_the_numbers_are_the_same(made, table, monkeypatch, capsys):
    before, scores = trainings(made), metrics(made)
    call(monkeypatch, *table, *WORDS, "--output_dir", str(made))
    assert trainings(made) == before
    assert metrics(made) == scores
    assert "nothing to train, 2 sizes found" in capsys.readouterr().err


@pytest.mark.slow
def test_another_curve_in_the_folder_is_refused(made, table, monkeypatch):
    with pytest.raises(UserError, match=r"holds another run: learning_rate was 0\.002 and is 0\.001"):
        call(monkeypatch, *table, "--learning_rate", "1e-3", *WORDS[2:], "--output_dir", str(made))


def test_with_four_sizes_a_curve_is_fitted(table, tmp_path, monkeypatch):
    monkeypatch.setattr("common.stats.power_law.RESAMPLES", 50)
    codebook, data = map(Path, table[1::2])
    arguments = TrainArguments(codebook=codebook, data=data, output_dir=tmp_path / "out", learning_rate=1e-3)
    curve = learning_curve.load(arguments, "", (10, 20, 40, 80))
    labels = [post.label for post in curve.test]
    wrong = dict(zip(curve.sizes, (9, 6, 4, 3), strict=True))
    measured = []
    for size, count in wrong.items():
        answers = [1 - label if number < count else label for number, label in enumerate(labels)]
        record = curve.scored.record(f"{size}", answers, module="x")
        # As where all labels of the few texts that several people labeled are equal.
        measured.append(Scored(size, answers, record, record, {EVERYWHERE: record.metrics["accuracy"]}))
    finding = curve_finding(curve, measured)
    finding.write(tmp_path / "f.json")
    assert read_finding(tmp_path / "f.json").facts == finding.facts
    twice, last = finding.facts["twice_as_many"], measured[-1].record.metrics["balanced_accuracy"]["value"]
    assert last - 0.02 <= twice["value"] <= 1
    assert twice["ci95"][0] <= twice["value"] <= twice["ci95"][1]
    assert finding.summary[0].startswith(
        "By a fitted curve, twice as many labeled texts (160) would change balanced accuracy"
    )
    assert finding.facts["sizes_off_the_curve"] == []
    assert finding.facts["verdict"] in ("more", "enough", "open")
    (part,) = (part for part in finding.parts if isinstance(part, Growth))
    assert part.curve[-1][0] == pytest.approx(160)
    assert "fitted curve" in pictures.growth(part, lambda _, words: words)
    assert "<svg" in pictures.growth(part)
    listed = replace(part, series={"adapter": [[0, 0.5, 0.4, 0.6]]})
    assert "logarithmic" in replace(finding, parts=[listed]).problem()


def test_a_curve_that_does_not_describe_the_scores_is_not_trusted(table, tmp_path, monkeypatch):
    monkeypatch.setattr("common.stats.power_law.RESAMPLES", 20)
    codebook, data = map(Path, table[1::2])
    arguments = TrainArguments(codebook=codebook, data=data, output_dir=tmp_path / "out", learning_rate=1e-3)
    curve = learning_curve.load(arguments, "", (10, 20, 40, 80))
    measured = []
    for size in curve.sizes:  # nothing is learned until the last
        answers = [curve.feature.label_of(post) if size == 80 else 0 for post in curve.test]
        record = curve.scored.record(f"{size}", answers, module="x")
        measured.append(Scored(size, answers, record, record, {}))
    finding = curve_finding(curve, measured)
    assert finding.facts["verdict"] == "off"
    assert finding.summary[0].startswith("With 80 labeled texts, balanced accuracy is 1.0000")
    assert "the curve does not describe the scores" in finding.summary[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "50"], "--sizes: not two different numbers or more"),
        (["--sizes", "50", "50"], "--sizes: not two different numbers or more"),
        (["--sizes", "5", "50"], "--sizes.*at least 10"),
        (["--max_steps", "7"], "--max_steps: the sizes share the number of epochs"),
        (["--push_to_hub", "--hub_model_id", "a/b"], "--push_to_hub: it has no effect on a learning curve"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, message, tmp_path):
    given = ["--feature", "offensiveYN", "--learning_rate", "1e-3", "--output_dir", str(tmp_path), *words]
    with pytest.raises(UserError, match=message):
        parse(command.CurveArguments, given)


def test_more_texts_than_there_are_and_a_folder_of_the_users_are_refused(table, tmp_path):
    codebook, data = map(Path, table[1::2])
    arguments = TrainArguments(codebook=codebook, data=data, output_dir=tmp_path, learning_rate=1e-3)
    with pytest.raises(
        UserError, match=r"--sizes: 5,000 texts; expected at most 1\d\d, the labeled texts of the train"
    ):
        learning_curve.load(arguments, "", (50, 5000))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="the folder is not empty and holds no learning curve"):
        learning_curve.load(arguments, "", ())
    with pytest.raises(UserError, match="the train split has 40 labeled texts; expected at least 60"):
        default_sizes(40)


@pytest.mark.slow
def test_a_curve_that_is_killed_is_continued_by_the_same_command(made, table, tmp_path):
    """The scores equal those of an uninterrupted curve, and no size is trained twice."""
    words = [*table, *WORDS, "--output_dir", str(tmp_path / "out")]
    process = forked.Forked(["-m", "sbic_llama.learning_curve", *words])
    output = forked.until(process, "size 2 of 2", "step 3 of 12")  # the second size, in the middle
    process.kill()
    output += process.communicate(timeout=120)[0]
    assert process.returncode == -signal.SIGKILL, output[-2000:]
    time.sleep(3)  # its process, which ends by itself
    before = trainings(tmp_path / "out")
    assert len(before) == 1, "the first size only"
    result = forked.run(["-m", "sbic_llama.learning_curve", *words], timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "continuing from checkpoint" in result.stderr
    assert before.items() <= trainings(tmp_path / "out").items()
    assert metrics(tmp_path / "out") == metrics(made)
