"""Findings may come from anybody's files, and end up on pages, cards and terminals."""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from common.cli.errors import UserError
from common.results import rendering
from common.results.checks import group_scores
from common.results.finding import (
    Curve,
    Finding,
    Listing,
    Measures,
    leave,
    read_finding,
    read_findings,
    stem,
    worded,
)
from common.results.pictures import class_shares, laid_out_once, png
from common.results.rendering import drawn, in_markdown, lines, markdown
from common.results.scoring import ScoredSet
from common.stats import metrics
from common.stats.metrics import evaluate

TRAINED = {
    "storage_bytes": 1,
    "parameters": {"trainable": 1, "total": 2},
    "peak_memory_bytes": {"host": 1},
    "seconds": 1.0,
}
MEASURE = {"value": 0.5, "n": 1200, "ci95": [0.4, 0.6]}


def finding(**changes: object) -> Finding:
    values = {
        "name": "agreement",
        "title": "Do they agree?",
        "task": "a task",
        "model": "QLoRA",
        "summary": ["They agree in 0.500 of 1,200 items.", "Which is <half>."],
        "parts": [
            Measures(
                "By group", "group", "accuracy", {"florbs": MEASURE, "other | <b> [http](x)": MEASURE}, 0.25, "chance"
            ),
            Curve("A curve", "x", "y", {"one": [[0.0, 0.0], [1.0, 0.5]]}, diagonal=True),
            Listing("People", ["name", "n", "passes"], [["ann", 1200, True], ["bob", None, 0.123456]]),
        ],
        "limits": "Whether they are right.",
        "data": {"name": "corpus", "split": "test", "fingerprint": "f"},
        "command": "python -m x",
    }
    return Finding(**values | changes)


def test_a_finding_is_read_as_it_was_written(tmp_path):
    finding().write(tmp_path / "f.json")
    assert read_finding(tmp_path / "f.json") == finding()


def test_a_finding_is_left_beside_the_records_and_with_the_model(tmp_path):
    (tmp_path / "model").mkdir()
    path = leave(finding(), tmp_path / "records", "sbic-x", tmp_path / "model")
    assert path == tmp_path / "records" / "findings" / "sbic-x-agreement.json"
    assert read_findings(path.parent) == read_findings(tmp_path / "model" / "evaluation" / "findings") == [finding()]
    assert read_findings(tmp_path / "nowhere") == []


def test_titles_in_other_letters_have_file_names_of_their_own():
    assert stem("sbic-x", "QLoRA, the study's wording") == "sbic-x-qlora-the-study-s-wording"
    titles = ("модель А", "модель Б", "模型一", "模型二", "α = 16", "β = 16", "é", "è", "🙂", "!")
    names = [stem("sbic-x", title) for title in titles]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"sbic-x(-16)?-[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), 99),
        (("name",), "../../escape"),
        (("title",), None),
        (("summary",), [3]),
        (("parts", 0, "kind"), "code"),
        (("parts", 0, "rows", "florbs", "value"), "0.5"),
        (("parts", 0, "rows", "florbs", "ci95"), [0.1]),
        (("parts", 0, "reference"), "high"),
        (("parts", 0, "extra"), 1),
        (("parts", 1, "series", "one"), [[0, "x"]]),
        (("parts", 2, "rows"), [["ann", 1]]),
        (("parts", 2, "rows"), [["ann", [1], True]]),
        (("data",), {"name": 3}),
        (("data",), {}),
        (("summary",), "text"),
        (("facts",), []),
        (("versions",), None),
        (("commit",), 3),
        (("miniature",), "false"),
        (("parts", 0, "rows", "florbs", "value"), 10**400),
        (("parts", 0, "rows"), {str(n): MEASURE for n in range(3000)}),
        (("parts", 1, "series"), {}),
        (("parts", 1, "series", "one"), []),
    ],
)
def test_a_damaged_finding_is_refused(tmp_path, path, value):
    file = tmp_path / "f.json"
    finding().write(file)
    values = json.loads(file.read_text())
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    file.write_text(json.dumps(values))
    with pytest.raises(UserError, match="a finding"):
        read_finding(file)


def test_deep_nesting_is_refused(tmp_path):
    (tmp_path / "f.json").write_text('{"facts": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(UserError, match="not a finding"):
        read_finding(tmp_path / "f.json")


def test_names_are_neither_markup_nor_mathematics_nor_escapes():
    strange = finding(parts=[Measures("t", "of", "m", {"team $$ one": MEASURE, "a\x1b[2Jb\nc": MEASURE})])
    assert [title for title, _ in drawn(strange, png)] == ["t"]
    assert not any(c in line for line in lines(strange) for c in "\x1b\n")
    assert in_markdown("<b>a</b> | `c`, p < .05") == "b a /b     c , p < .05", "before a space it cannot open a tag"


def test_groups_are_told_apart_from_chance():
    labels = [0] * 400
    names = [f"g{i % 20}" for i in range(400)]
    scored = replace(scored_set(), labels=labels, groups={"group": names})
    rng = np.random.default_rng(0)
    even = group_scores(scored.record("m", (rng.random(400) < 0.2).astype(int).tolist(), module="m"))
    assert float(re.search(r"p = (0\.\d+)", even.summary[1])[1]) > 0.01
    uneven = group_scores(scored.record("m", [int(i % 20 < 4) for i in range(400)], module="m"))
    assert "p < .001" in uneven.summary[1]
    assert "by chance too" in uneven.limits
    alike = group_scores(scored.record("m", labels, module="m"))
    assert alike.summary == ["By group, accuracy is 1.000 in all 20 groups."]
    few = group_scores(replace(scored, groups={"group": ["big"] * 390 + ["rare"] * 10}).record("m", labels, module="m"))
    assert few.summary == [], "one group has nothing to compare with"


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        finding(facts={"x": float("nan")}).write(tmp_path / "f.json")
    assert not list(tmp_path.iterdir())


def test_what_a_terminal_and_a_card_show():
    text = "\n".join(lines(finding()))
    for part in ("a task, QLoRA: Do they agree?", "1,200", "0.5000 [0.400, 0.600]", "bob", "0.1235", "yes", "–"):
        assert part in text
    assert lines(finding(), numbers=False)[1:] == ["  They agree in 0.500 of 1,200 items."]
    assert "(miniature)" in lines(finding(miniature=True))[0]
    card = markdown(finding(), [("By group", "pictures/agreement-1.png")])
    assert r"| other    b  \[http\](x) | 1,200 | 0.5000 [0.400, 0.600] |" in card, (
        "a group's name can't break the table"
    )
    assert "![By group](pictures/agreement-1.png)" in card
    assert "What this does not show: Whether they are right." in card
    long = finding(parts=[Listing("People", ["name"], [[f"p{n}"] for n in range(30)])])
    assert "the first 20 of 30" in "\n".join(lines(long))
    assert "p20" not in "\n".join(lines(long))


def test_a_card_and_a_page_fold_everything_but_the_headline_and_the_pictures():
    card = markdown(finding(), [("By group", "pictures/agreement-1.png")])
    open_part, folded = card.split("<details><summary>The numbers</summary>")
    assert open_part.index("They agree in 0.500") < open_part.index("![By group]")
    assert all(text in folded for text in ("Which is  half .", "| ann | 1,200 |", "Whether they are right."))
    record = scored_set().record("QLoRA", [0] * 90, module="m", **TRAINED)
    page = rendering.render([record], "Page", [finding()])
    shown = page[page.index("Do they agree? (QLoRA)</h3>") :]
    open_part, folded = shown.split("<details>")[:2]
    assert "They agree in 0.500" in open_part and "<figure>" in open_part
    assert "Which is &lt;half&gt;." in folded and "whether they are right." in folded
    assert "<table>" not in open_part


def test_words_come_from_a_template(tmp_path):
    (tmp_path / "w.jinja").write_text(
        "{% macro double(n) %}{{ 2 * n }}{% endmacro %}{% block title %}How{% endblock %}"
        "{% block headline %}\nIt is\n{{ double(m.n) }}: {{ m|interval }}.\n{% endblock %}"
        "{% block details %}One {{ text }}.\n\nTwo.{% endblock %}{% block limits %}{% endblock %}"
    )
    words = worded(tmp_path / "w.jinja", m=MEASURE, text="{{ 7 * 7 }} <b>\x1b\n\n\u202eforged")
    expected = ["It is 2400: 0.5000 [0.400, 0.600].", "One {{ 7 * 7 }} <b> forged.", "Two."]
    assert words == {"title": "How", "summary": expected, "limits": ""}


def test_each_part_has_a_picture():
    result = drawn(finding(), png)
    assert [title for title, _ in result] == ["By group", "A curve"]
    assert all(picture.startswith(b"\x89PNG") for _, picture in result)
    assert result == drawn(finding(), png), "equal findings, equal bytes"
    single = finding(parts=[Measures("One", "of", "accuracy", {"a": MEASURE})])
    assert drawn(single, png) == [], "one dot needs no picture"


def scored_set() -> ScoredSet:
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=90).tolist()
    return ScoredSet(
        task="a task", question="?", limits="None.", data="corpus", split="test", names=("a", "b"), labels=labels,
        fingerprint="f", class_counts={"test": {"a": 1, "b": 2}}, reports=[], policy={}, miniature=True,
        groups={"group": [("florbs", "<i>drevins</i>") if i % 3 else ("florbs",) if i % 2 else "none" for i in range(90)]},
    )  # fmt: skip


def test_a_picture_that_is_laid_out_once_is_what_savefig_writes():
    def saved(figure, _):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return buffer.getvalue()

    pictures = drawn(finding(), lambda figure, _: laid_out_once(figure))
    assert pictures == drawn(finding(), saved)
    assert len(pictures) == 2


def test_an_item_of_several_groups_counts_in_each():
    record = scored_set().record("QLoRA", scored_set().labels, module="m")
    assert {name: row["n"] for name, row in record.by_group["group"].items()} == {
        "florbs": 75,
        "<i>drevins</i>": 60,
        "smaller ones": 15,
    }


def test_the_page_shows_findings_in_the_section_of_their_task():
    record = scored_set().record("QLoRA", [0] * 90, module="m", **TRAINED)
    baseline = replace(record, title="baseline", storage_bytes=None)
    page = rendering.render([baseline, record], "Page", [finding(summary=["<script>alert(1)</script>"])])
    assert "Do they agree? (QLoRA)" in page
    assert "<script>alert" not in page
    assert "<i>drevins</i>" not in page, "a group's name must not become markup"
    assert "drevins" in html.unescape(page)
    assert "Is it equally good everywhere? (QLoRA)" in page
    assert page.count("<figure>") == 3 + 1 + 2
    with pytest.raises(UserError, match="a finding on 'another', but no record of this task"):
        rendering.render([record], "Page", [finding(task="another")])


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(300):
        values = rng.random(60) < 0.3
        low, high = metrics.measure(lambda chosen, v=values: v[chosen].mean(), 60, seed, 400)["ci95"]
        held += low <= 0.3 <= high
    assert 0.90 <= held / 300 <= 0.98
    assert metrics.mean([1.0, 0.0], 0)["value"] == 0.5
    with pytest.raises(ValueError, match="no value on 0 items"):
        metrics.mean([], 0)


@pytest.mark.parametrize(("right", "n"), [(12, 12), (0, 7), (5, 5)])
def test_few_right_answers_leave_an_interval_of_some_width(right, n):
    values = [1.0] * right + [0.0] * (n - right)
    low, high = binomtest(right, n).proportion_ci(method="wilson")
    assert metrics.share(values, 0)["ci95"] == pytest.approx([low, high])
    evaluated = evaluate([0] * n, [0] * right + [1] * (n - right), ("a", "b"))
    assert evaluated["accuracy"]["ci95"] == evaluated["recall/a"]["ci95"] == pytest.approx([low, high])
    assert metrics.share([1.0, 0.0, 1.0], 0) == metrics.mean([1.0, 0.0, 1.0], 0)
    with pytest.raises(ValueError, match="from -1"):
        metrics.share([-1.0, 0.0], 0)


def test_labels_that_nobody_gave_are_drawn_as_zero():
    assert "people: a 0, b 0" in class_shares({"people": {"a": 0, "b": 0}})
