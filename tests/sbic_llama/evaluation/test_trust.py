"""The page on a researcher's own file: the answer, the numbers behind it, and input that is rejected."""

from __future__ import annotations

import csv
import html
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.cli.arguments import ENCODING
from common.cli.errors import UserError
from common.miniature.pretrain import MODELS
from common.results.finding import Finding, worded
from common.stats.guarantee import Guarantee
from common.tables.reading import read_rows
from common.tables.writing import write_rows
from sbic_llama import trust
from sbic_llama.data.corpus import load_splits
from sbic_llama.data.features import FEATURES
from sbic_llama.data.label_files import labels_of, read_human_votes
from sbic_llama.evaluation.methods_section import Records, render
from sbic_llama.evaluation.trust_page import (
    LEAST_ALPHA,
    LEAST_LABELS,
    TEMPLATES,
    WIDEST,
    LabeledAnswers,
    called,
    judge,
    labels_needed,
    verdict,
)
from sbic_llama.model.annotator import read_adapters

NAMES = ("offensiveYN", "targetMinority")


@pytest.fixture(scope="module")
def adapters(trained_adapters) -> list[Path]:
    return [trained_adapters / name for name in NAMES]


@pytest.fixture(scope="module")
def files(miniature, tmp_path_factory) -> tuple[Path, Path]:
    """Return a file of posts, and the corpus's own labels of 150 of them."""
    folder = tmp_path_factory.mktemp("files")
    posts = load_splits(data_dir=miniature / "SBIC.v2")["test"].posts[:300]
    write_rows(
        folder / "posts.csv",
        [
            {"id": n, "row": n, "model_row": n, "post": post.text, "source": "a" if n % 3 else "b"}
            for n, post in enumerate(posts)
        ]
        + [{"id": 300, "row": 300, "model_row": 300, "post": "", "source": "b"}],
    )
    chosen = random.Random(0).sample(range(300), 150)
    rows = [{"id": n, **{name: FEATURES[name].target(posts[n]) or "" for name in NAMES}} for n in chosen]
    write_rows(folder / "labels.csv", rows)
    return folder / "posts.csv", folder / "labels.csv"


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> Path:
    """Return a folder for the annotation of the posts, which the first test makes."""
    return tmp_path_factory.mktemp("annotated")


@pytest.fixture
def call(adapters, files, annotated, monkeypatch):
    def run(output: Path, *more: object, posts: Path = files[0], labels: Path = files[1]) -> None:
        if posts == files[0] and not output.exists():
            shutil.copytree(annotated, output)
        words = [posts, "--human_labels", labels, "--key", "id", "--output_dir", output, *more]
        for adapter in adapters:
            words += ["--adapter", adapter]
        monkeypatch.setattr("sys.argv", ["trust", *map(str, words)])
        trust.main()
        for name in ("annotated.json", "annotated.parquet"):
            if posts == files[0]:
                shutil.copy(output / name, annotated)

    return run


def test_the_page_opens_with_an_answer_and_has_the_numbers(call, tmp_path, files, capsys, monkeypatch):
    call(tmp_path)
    page = html.unescape((tmp_path / "trust.html").read_text(encoding="utf-8"))
    annotated = {row.values["id"]: row.values for row in read_rows(tmp_path / "annotated.parquet")}
    labels = [row.values for row in read_rows(files[1])]
    right = [annotated[row["id"]]["model_offensiveYN"] == row["offensiveYN"] for row in labels if row["offensiveYN"]]
    accuracy = sum(right) / len(right)
    assert f"<strong>accuracy {accuracy:.3f} [" in page
    assert f"on {len(right)} posts with human labels" in page
    given = [row["offensiveYN"] for row in labels if row["offensiveYN"]]
    commonest = max(FEATURES["offensiveYN"].labels, key=given.count)
    gain = accuracy - given.count(commonest) / len(given)
    answer, why = re.search(r"<strong>(.*?)</strong></p>\s*<p>(.*?)</p>", page).groups()
    assert answer == "offensiveYN: use with review.", "no annotator is named, so agreement is unknown"
    assert why.startswith(f"Accuracy is {accuracy:.4f} [")
    assert f'better than always answering "{commonest}" (difference {gain:.4f} [' in why
    assert "Agreement with people is unknown" in why
    assert capsys.readouterr().out.splitlines()[0] == f"offensiveYN: use with review. {why}", "and so does the output"
    assert "Numbers of the miniature" in page
    assert "301 rows in posts.csv, 1 of which could not be annotated" in page
    assert re.search(r"<strong>set F1 0\.\d{3} \[", page)
    # Half of the labeled posts go to people: accuracy on the more certain half.
    scored = sorted(
        (max(v for k, v in annotated[row["id"]].items() if k.startswith("model_offensiveYN_")), ok)
        for row, ok in zip((row for row in labels if row["offensiveYN"]), right, strict=True)
    )
    rest = [ok for _, ok in scored[round(len(scored) / 2) :]]
    half = page.split("<td>the least certain 50% go to people</td>")[1].split("</tr>")[0]
    assert f"{sum(rest) / len(rest):.4f}" in half
    assert "Can its probabilities be trusted? (model)" in page
    assert "People would call " in page
    assert "target a group of people." in page
    assert "Krippendorff" not in page.split("How the answer is found")[1].split("</details>")[1], (
        "annotators are not named"
    )
    assert "python -m sbic_llama.trust posts.csv --human_labels labels.csv" in page
    assert "http" not in page.replace("http://www.w3.org", ""), "the page is self-contained"
    with open(tmp_path / "review.csv", encoding="utf-8", newline="") as file:
        review = list(csv.DictReader(file))
    assert len(review) == round(0.1 * 301)
    assert all(row["row"] == row["model_row"] == row["id"] for row in review), "the file's own columns are kept"
    assert all(int(row["model_row_"]) == int(row["id"]) + 1 for row in review)
    assert "300" not in {row["id"] for row in review}, "a post without text can't be labeled"
    assert [float(row["model_confidence"]) for row in review] == sorted(
        float(row["model_confidence"]) for row in review
    )
    assert not {row["id"] for row in review} & {row["id"] for row in labels if all(row.values())}
    # A second run does not annotate again.
    monkeypatch.setattr(trust, "annotate", None)
    call(tmp_path, "--review_share", 0.2)
    log = capsys.readouterr().err
    assert "already annotated" in log
    assert list(csv.DictReader((tmp_path / "review.csv").open(encoding="utf-8", newline=""))) == review
    assert "60 rows for review: " + str(tmp_path / "review-2.csv") in log
    page = (tmp_path / "trust.html").read_text(encoding="utf-8")
    assert "<code>review-2.csv</code> has the 60 rows" in page and "Earlier files for review stay as they are" in page


def test_rows_for_review_replace_no_file_that_people_may_have_written_into(tmp_path):
    made = tmp_path / "made"
    names = []
    for text in ("a", "a", "b", "a", "b", "c"):
        made.write_text(text)
        names.append(trust.keep_review(made, tmp_path).name)
        assert (tmp_path / names[-1]).read_text() == text
    assert names == ["review.csv", "review.csv", "review-2.csv", "review.csv", "review-2.csv", "review-3.csv"]
    assert not made.exists()


def test_the_page_compares_with_named_annotators_and_shows_the_adapters_own_findings(call, tmp_path, files, adapters):
    rows = [row.values for row in read_rows(files[1])]
    other = {"Offensive": "Maybe offensive"}
    people = [{**row, "annotator": who} for row in rows for who in ("ann", "bob")]
    people += [{**row, "annotator": "ann"} for row in rows[:2]]  # a repeated row counts once
    people += [
        {**row, "annotator": "cyd", "offensiveYN": other.get(row["offensiveYN"], row["offensiveYN"])} for row in rows
    ]
    write_rows(tmp_path / "labels.csv", people)
    kept = adapters[0] / "evaluation" / "findings" / "robustness.json"
    record = {"task": "t", "model": "QLoRA", "data": {"name": "SBIC", "split": "test", "fingerprint": "f"}}
    Finding(name="robustness", title="Changed?", summary=["In 0.123."], parts=[], limits="", **record).write(kept)
    own = Finding(name="calibration", title="Of SBIC", summary=["x"], parts=[], limits="", **record)
    own.write(kept.with_name("calibration.json"))
    try:
        call(tmp_path / "out", labels=tmp_path / "labels.csv")
    finally:
        shutil.rmtree(kept.parents[1])
    page = html.unescape((tmp_path / "out" / "trust.html").read_text(encoding="utf-8"))
    assert page.count("Does the model agree with people as much as they agree with each other? (model)") == 2
    assert "of 3 annotators: ω" in page
    assert "Changed? (QLoRA)" in page
    assert "On SBIC, test." in page
    assert "Of SBIC (QLoRA)" not in page, "these labels have their own calibration"
    labeled = sum(bool(row["offensiveYN"]) for row in rows)
    assert f"{3 * labeled:,} labels of 3 people on {labeled:,} items" in page
    assert page.count("2 repeating an earlier row, counted once.") >= 2


def test_groups_named_by_several_people_are_combined(tmp_path):
    rows = [{"id": 1, "targetMinority": groups} for groups in ("florbs", "florbs", "drevins, ombrians", "none")]
    write_rows(tmp_path / "labels.csv", [*rows, {"id": 2, "targetMinority": "none"}])
    feature = FEATURES["targetMinority"]
    labels = labels_of(read_human_votes(tmp_path / "labels.csv", "id", feature), feature)
    assert labels == {"1": ("drevins", "florbs", "ombrians"), "2": ()}
    # One person may use a row for each group, but can't name a group and none.
    own = [row | {"annotator": "ann"} for row in rows]
    write_rows(tmp_path / "labels.csv", own[:3])
    votes = read_human_votes(tmp_path / "labels.csv", "id", feature)
    assert (votes.labels, votes.repeated) == ({"1": {"ann": ("drevins", "florbs", "ombrians")}}, 1)
    write_rows(tmp_path / "labels.csv", own)
    with pytest.raises(
        UserError, match=r"line 5.* item '1' by annotator 'ann' is labeled 'none' here and 'florbs' in an ear"
    ):
        read_human_votes(tmp_path / "labels.csv", "id", feature)


def test_a_guarantee_decides_which_rows_people_review(call, tmp_path, files, capsys):
    """What is certain enough is not in the file for review, and the page and the terminal say so in the same words."""
    call(tmp_path, "--target_accuracy", 0.6, "--confidence", 0.8, "--guarantee_by", "source")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Answers with a confidence")]
    page = html.unescape((tmp_path / "trust.html").read_text(encoding="utf-8"))
    assert len(lines) == len(NAMES) and all(line in page for line in lines)
    least = [float(re.search(r"at least (0\.\d+|1\.0+),", line)[1]) for line in lines]
    labeled = {row.values["id"] for row in read_rows(files[1])}
    review = {row.values["id"] for row in read_rows(tmp_path / "review.csv")}
    for row in read_rows(tmp_path / "annotated.parquet"):
        values = row.values
        if str(values["id"]) in labeled or values["post"] == "":
            continue
        sure = max(values[f"model_offensiveYN_probability_{label}"] for label in FEATURES["offensiveYN"].labels)
        if sure < least[0] - 0.001:
            assert str(values["id"]) in review
    # Each answer and each source has a row of its own, and each source's labels are its own.
    by_answer = page.split("of the time, by answer:")[1].split("</table>")[0]
    assert all(f"<tr><td>{label}</td>" in by_answer for label in FEATURES["offensiveYN"].labels)
    by_source = page.split("of the time, by source:")[1].split("</table>")[0]
    assert re.findall(r"<td>([ab])</td>", by_source) == ["a", "b"]
    of_a = [row for row in read_rows(files[1]) if int(row.values["id"]) % 3 and row.values["offensiveYN"]]
    assert max(int(count) for count in re.findall(r"\d+ of (\d+)", by_source)) <= len(of_a)
    call(tmp_path / "high", "--target_accuracy", 0.999)
    assert "Too few human labels for a guarantee of 99.9%" in capsys.readouterr().out


def test_labels_of_an_unequal_draw_are_weighted(call, tmp_path, files):
    """Each counts by the inverse of its probability, in every number of the page."""
    chances = [0.1 if n % 3 else 0.5 for n in range(150)]
    rows = [
        row.values | {"sampling_probability": chance} for row, chance in zip(read_rows(files[1]), chances, strict=True)
    ]
    people = [{**row, "annotator": who} for row in rows for who in ("ann", "bob")]
    write_rows(tmp_path / "labels.csv", people)
    with pytest.raises(UserError, match="unequal probabilities, which the guarantee does not allow"):
        call(tmp_path / "refused", "--target_accuracy", 0.9, labels=tmp_path / "labels.csv")
    call(tmp_path / "out", labels=tmp_path / "labels.csv")
    page = html.unescape((tmp_path / "out" / "trust.html").read_text(encoding="utf-8"))
    annotated = {row.values["id"]: row.values for row in read_rows(tmp_path / "out" / "annotated.parquet")}
    kept = [row for row in rows if row["offensiveYN"]]
    right = [annotated[row["id"]]["model_offensiveYN"] == row["offensiveYN"] for row in kept]
    # Within a stratum, labels are missing at random: each stands for its stratum's size by its labels.
    strata = [row["sampling_probability"] for row in kept]
    weights = [(chances.count(chance) / chance) / strata.count(chance) for chance in strata]
    accuracy = np.average(right, weights=weights)
    assert accuracy != pytest.approx(np.mean(right), abs=0.001)
    assert f"<strong>accuracy {accuracy:.3f} [" in page
    effective = sum(weights) ** 2 / sum(weight**2 for weight in weights)
    assert f"as {effective:.0f} labels of a simple draw (effective sample size)" in page
    assert page.count("Does the model agree with people as much as they agree with each other?") == 2
    assert "weighted t" in page
    confidences = [max(v for k, v in annotated[row["id"]].items() if "YN_probability" in k) for row in kept]
    gap = np.average(np.subtract(confidences, right), weights=weights)
    assert f"{abs(gap):.3f}" in page.split("Can its probabilities be trusted?")[1]


def test_shares_are_not_estimated_if_rows_repeat_a_key(call, tmp_path, files, capsys):
    rows = [row.values for row in read_rows(files[0])]
    write_rows(tmp_path / "posts.csv", [*rows, rows[0]])
    call(tmp_path / "out", posts=tmp_path / "posts.csv")
    assert "warning: 1 row repeats the 'id' of an earlier row: shares are not estimated" in capsys.readouterr().err
    assert "People would" not in (tmp_path / "out" / "trust.html").read_text(encoding="utf-8")


def test_several_people_a_post_and_labels_of_posts_elsewhere(call, tmp_path, files, capsys):
    rows = [row.values for row in read_rows(files[1])]
    more = [dict(rows[0], offensiveYN=label) for label in ("not offensive", " Not offensive ", "Offensive")]
    write_rows(
        tmp_path / "labels.csv", [*rows[1:], *more, {"id": "gone", "offensiveYN": "Offensive", "targetMinority": ""}]
    )
    feature = FEATURES["offensiveYN"]
    assert labels_of(read_human_votes(tmp_path / "labels.csv", "id", feature), feature)[rows[0]["id"]] == 2
    call(tmp_path / "out", "--quiet", labels=tmp_path / "labels.csv")
    assert re.search(
        r"warning: 1 of \d+ labeled posts is not among the annotated posts and left out", capsys.readouterr().err
    )
    page = (tmp_path / "out" / "trust.html").read_text(encoding="utf-8")
    assert "1 labeled post is not among the annotated posts of the file and left out." in page


def test_a_file_that_has_annotations_already_needs_another_prefix(call, tmp_path, files):
    rows = [{**row.values, "model_offensiveYN": "x"} for row in read_rows(files[0])]
    write_rows(tmp_path / "posts.csv", rows)
    with pytest.raises(UserError, match=r"already has a column 'model_offensiveYN'\. Rename .* another --prefix"):
        call(tmp_path / "out", posts=tmp_path / "posts.csv")
    shutil.rmtree(tmp_path / "out")
    call(tmp_path / "out", "--prefix", "own_", posts=tmp_path / "posts.csv")
    columns = next(read_rows(tmp_path / "out" / "annotated.parquet")).values
    assert columns["model_offensiveYN"] == "x"
    assert columns["own_offensiveYN"] in FEATURES["offensiveYN"].labels
    assert (tmp_path / "out" / "trust.html").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:20], r"only \d+ posts have a label of offensiveYN; expected at least 30"),
        (
            lambda rows: [dict(row, offensiveYN="Very") for row in rows],
            r"line 2, column 'offensiveYN': unknown label 'Very'",
        ),
        (lambda rows: [{"id": row["id"]} for row in rows], "missing column 'offensiveYN'"),
        (
            lambda rows: [dict(row, id=f"x{row['id']}") for row in rows],
            r"only 0 of the posts .* are in the file of posts.*: compare 'x\d+' in labels.csv with '0' in posts.csv",
        ),
    ],
)
def test_labels_that_do_not_fit_are_rejected(call, tmp_path, files, change, message):
    write_rows(tmp_path / "labels.csv", change([row.values for row in read_rows(files[1])]))
    with pytest.raises(UserError, match=message):
        call(tmp_path / "out", labels=tmp_path / "labels.csv")


def test_a_folder_with_another_annotation_is_rejected(call, tmp_path, files, monkeypatch):
    call(tmp_path)
    other = tmp_path / "posts.csv"
    other.write_text(files[0].read_text(encoding="utf-8") + "301,one more\n", encoding="utf-8")
    with pytest.raises(UserError, match="it holds an annotation of other posts"):
        call(tmp_path, posts=other)
    monkeypatch.setenv(ENCODING, "cp1251")
    with pytest.raises(UserError, match="it holds an annotation of other posts"):
        call(tmp_path, posts=files[0])


def gain(low: float, high: float, n: int = LEAST_LABELS) -> dict:
    return {"value": (low + high) / 2, "n": n, "ci95": [low, high]}


@pytest.mark.parametrize(
    ("gain", "alpha", "passed", "use"),
    [
        (gain(0.01, 0.2), LEAST_ALPHA, True, "use as is"),
        (gain(0.01, 0.2), LEAST_ALPHA - 0.001, True, "use with review"),
        (gain(0.01, 0.2), 0.9, False, "use with review"),
        (gain(0.01, 0.2), 0.9, None, "use with review"),
        (gain(0.01, 0.2), None, True, "use with review"),
        (gain(0.01, 0.2, LEAST_LABELS - 1), 0.9, True, "use with review"),
        (gain(0.5, 0.5 + 2 * WIDEST), 0.9, True, "use with review"),
        (gain(0.0, WIDEST), 0.9, True, "do not use"),
        (gain(-0.01, WIDEST), 0.9, True, "too few human labels to say"),
        (gain(0.0, 0.1, LEAST_LABELS - 1), 0.9, True, "too few human labels to say"),
        (gain(-0.5, -0.01, 30), 0.9, True, "do not use"),
        (gain(-0.5, 0.0, 30), 0.9, True, "too few human labels to say"),
    ],
)
def test_the_answer_changes_at_its_thresholds(gain, alpha, passed, use):
    assert verdict(gain, alpha, passed) == use


@pytest.mark.parametrize(("trained", "use"), [(5, "use as is"), (6, "use with review")])
def test_posts_that_were_trained_on_do_not_show_that_no_review_is_needed(trained, use):
    assert verdict(gain(0.01, 0.2), 0.9, True, trained=trained) == use


def test_labeled_posts_that_were_trained_on_are_told(trained_adapters, miniature, tmp_path):
    """A user who takes the labels behind the training for a test would see scores that are too high."""
    [adapter] = read_adapters([str(trained_adapters / "offensiveYN")])
    splits = load_splits(data_dir=miniature / "SBIC.v2")
    posts = [*splits["train"].posts[:40], *splits["dev"].posts[:4], *splits["test"].posts[:20]]
    answers = dict(zip((f"model_{name}" for name in adapter.columns), ["Offensive", 0.1, 0.2, 0.7], strict=True))
    write_rows(
        tmp_path / "annotated.csv", [{"id": n, "post": f" {p.text.upper()}", **answers} for n, p in enumerate(posts)]
    )
    judged = judge(
        adapter, tmp_path / "annotated.csv", {str(n): 0 for n in range(2, 64)}, key="id", texts=adapter.feature.texts
    )
    assert judged.trained == 38 + 4, "whatever their case and spaces"


def test_a_model_with_one_answer_is_not_to_be_used(miniature, tmp_path, monkeypatch, capsys):
    """Even with too few labels to say that it is worse than a constant: it is one."""
    assert verdict(gain(0.1, 0.2), 0.9, True, one_answer=True) == "do not use"
    assert verdict(gain(-0.1, 0.1, 30), None, None, one_answer=True) == "do not use"
    own = miniature / "own_task"
    words = [own / "posts.csv", "--human_labels", own / "people.csv", "--key", "id", "--output_dir", tmp_path / "out"]
    words += ["--codebook", own / "codebook.yaml", "--model", MODELS / "tiny_llama"]
    monkeypatch.setattr("sys.argv", ["trust", *map(str, words)])
    trust.main()
    printed = capsys.readouterr().out
    answers = {row.values["model_complaint"] for row in read_rows(tmp_path / "out" / "annotated.parquet")}
    assert len(answers) == 1, "the miniature's base, untrained"
    assert "complaint: do not use." in printed and f'It answers "{answers.pop()}" to every post of the file.' in printed


def test_labels_needed_for_an_answer():
    assert labels_needed(gain(-0.2, 0.2, 200)) == 800, "half the width takes four times the labels"
    assert labels_needed(gain(0.0, 0.1, 30)) == LEAST_LABELS


def test_the_model_is_compared_with_the_best_constant_answer_by_post():
    shared = {"confidences": [], "probabilities": None, "everywhere": {}, "missing": 0, "by_key": {}}
    shared |= {"repeated": 0, "keys": {}, "certain": []}
    judged = LabeledAnswers(FEATURES["offensiveYN"], labels=[0, 0, 0, 2], answers=[0, 0, 1, 2], **shared)
    assert judged.constant() == (0, [1, 1, 1, 0])
    assert judged.gain(0)["value"] == 0, "one post won, one lost"
    groups = LabeledAnswers(
        FEATURES["targetMinority"], labels=[("a",), ("a", "b"), ()], answers=[("a",), ("b",), ()], **shared
    )
    assert groups.constant() == (("a",), [1, pytest.approx(2 / 3), 0])
    assert groups.gain(0)["value"] == pytest.approx(1 / 3)


def test_words_are_true_of_a_confidence_near_1_and_of_alpha_without_a_value():
    found = Guarantee(0.9, 0.95, 0.99987, 0.4, 50, 50, 0.94, 29)
    said = worded(TEMPLATES / "guarantee.jinja", found=found, rows=100)["summary"][0]
    assert "at least 0.99987," in said
    values = {
        "use": "use with review",
        "only": None,
        "trained": 0,
        "metric": "accuracy",
        "constant": "Yes",
        "enough": True,
    }
    values |= {
        "score": gain(0.8, 0.9),
        "gain": gain(0.1, 0.2),
        "alpha": None,
        "least_alpha": 0.667,
        "widest": 0.2,
        "needed": 9,
    }
    for constant, words in ((True, "because all labels are equal"), (False, "has no value; the finding on agreement")):
        test = {"constant": constant, "passed": None, "min_items": 30}
        assert words in " ".join(worded(TEMPLATES / "verdict.jinja", **values, test=test)["summary"])


def test_four_posts_that_all_speak_for_the_model_show_no_gain():
    """By the sign test, they do so by chance with a probability of 1/8."""
    shared = {"confidences": [], "probabilities": None, "everywhere": {}, "missing": 0, "by_key": {}}
    shared |= {"repeated": 0, "keys": {}, "certain": []}
    labels = [0] * 95 + [1] * 5
    judged = LabeledAnswers(FEATURES["hasBiasedImplication"], labels=labels, answers=[0] * 95 + [1] * 4 + [0], **shared)
    low, high = judged.gain(0)["ci95"]
    assert low < 0 < high


def test_a_paper_is_written_from_an_adapter_and_a_trust_page(trained_adapters, call, tmp_path):
    """Every number of the text is in the table of sources, whose files exist."""
    call(tmp_path / "trust")
    records = Records()
    records.add(trained_adapters / "offensiveYN")
    records.add(tmp_path / "trust")
    text, works = render(records, "markdown")
    body, _, table = text.partition("## Source of each number")
    assert "by low-rank adaptation [@hu2022lora] of its weights in 4 bits [@dettmers2023qlora], with rank" in body
    assert "about invented texts" in body
    assert "People labeled 150 texts of posts.csv." in body
    assert "Social Bias Frames" in works
    known = " ".join(line.split("|")[2] for line in table.splitlines() if line.startswith("| "))
    body = re.sub(
        r"\[@[^]]*\]|95%|\(torch.*?\)|4 bits|on [A-Z][^,]*,|fp32|bf16|\(counting[^)]*\)|v2|formed by this rule.*",
        "",
        body,
    )
    for number in re.findall(r"(?<![\w.])\d[\d,]*\.?\d*|(?<!\d)\.\d+", body):
        assert number.rstrip(".,") in known, number


def test_posts_and_human_labels_may_be_splits_on_the_hub(hub, files):
    from huggingface_hub import HfApi

    HfApi().create_repo("miniature/posts", repo_type="dataset")
    for path, split in zip(files, ("train", "test"), strict=True):
        where = {"path_in_repo": f"{split}{path.suffix}", "repo_id": "miniature/posts", "repo_type": "dataset"}
        HfApi().upload_file(path_or_fileobj=path, **where)
    url = "hf://datasets/miniature/posts"
    given = {"posts": (f"{url}:train",), "human_labels": Path(f"{url}:test"), "adapter": ("miniature/adapter",)}
    arguments = trust.TrustArguments(**given)
    read = [list(read_rows(path)) for path in (Path(arguments.posts[0]), arguments.human_labels)]
    assert [[row.values for row in rows] for rows in read] == [
        [row.values for row in read_rows(path)] for path in files
    ]
    commit = HfApi().dataset_info("miniature/posts").sha
    assert called(Path(arguments.posts[0])) == f"{url}@{commit}:train", "what the page and its records say"
    assert called(files[0]) == "posts.csv"
