"""Text that others wrote stays text on terminals, in Markdown, on cards and on pages, whatever it holds."""

from __future__ import annotations

import copy
import dataclasses
import html.parser
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from common.cli import console
from common.cli.errors import UserError, printable
from common.hub.card import Trained, read_trained
from common.hub.package import publication_of
from common.results import pictures, rendering
from common.results.finding import Finding, Listing, Measures
from common.results.record import RunRecord
from common.results.scoring import Evaluation
from common.tables.report import DataReport

RUNS = Path(__file__).parents[1] / "hub" / "runs"
HOSTILE = (
    "\x1b[2J\x1b]0;renamed\x07 screen", "verified\rerror: forged", "line\n\n# forged heading\n\nmore",
    "<img src=x onerror=alert(1)>", "[here](javascript:alert(1))", "![here](javascript:alert(1))",
    "<javascript:alert(1)>", "\u202etxt.exe\u2066", "a\u2028b\u200bc", "a | b | c", "`code`", "```\nfence", "~~~",
    "# heading", "- item", "+ item", "* item", "1. item", "2) item", "> quote", "===", "---", "___", "***",
    "[x]: javascript:alert(1)", "**bold**", "~~gone~~", "$$\\href{javascript:x}{y}$$", "</details>",
    "</script><script>x", "ends in \\", "&lt;img&gt; &#60;b&#62;", "hf_" + "a1B2" * 6, "{{ 7 * 7 }}", "\ud83d lone",
)  # fmt: skip
MEASURE = {"value": 0.5, "n": 40, "ci95": [0.4, 0.6]}


def record(text: str) -> RunRecord:
    metrics = dict.fromkeys(("accuracy", "balanced_accuracy", "f1/weighted", "f1/macro"), MEASURE)
    report = {"name": text, "read": 40, "kept": 39, "dropped": {text: 1}, "notes": {text: 3}}
    counts = {"class_counts": {text: {text: 20, f"{text}2": 20}}, "reports": [report]}
    return RunRecord(
        title=text,
        task=text,
        metrics=metrics,
        labels=[text, f"{text}2"],
        confusion=[[15, 5], [5, 15]],
        policy={text: text},
        data={"name": text, "split": text, "fingerprint": text, "question": text, "limits": text, **counts},
        command=text,
        commit=text,
        hardware={"cpu": text, "cores": text, "threads": text, "gpus": [{"name": text}]},
        versions={text: text},
        storage_bytes=1,
        parameters={"trainable": 1, "total": 2},
        peak_memory_bytes={"host": 1},
        seconds=1.0,
        by_group={text: {text: MEASURE}},
    )


def finding(text: str) -> Finding:
    parts = [
        Measures(text, text, text, {text: MEASURE, f"{text}2": MEASURE}),
        Listing(text, [text, "n"], [[text, 1], [text, None]]),
    ]
    data = {"name": text, "split": text, "fingerprint": text}
    return Finding("name", text, text, text, [text, text], parts, text, data, command=text, commit=text)


def check_line(line: str) -> None:
    assert line.isprintable(), line
    assert "a1B2" not in line, "a token"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_gets_single_printable_lines(text, capsys):
    for line in (
        *rendering.table_lines([record(text)]),
        *rendering.lines(finding(text)),
        str(UserError(text, file=text, column=text, fix=text)),
    ):
        check_line(line)
    rendering.show([finding(text)])
    console.log(text)
    console.warn(text)
    with console.stage(text):
        pass
    report = DataReport(text, 2, 1, {text: 1}, {text: text}, {text: 1})
    for line in report.lines():
        console.log(line)
    written = capsys.readouterr()
    for line in (*written.out.split("\n"), *written.err.split("\n")):
        check_line(line)
    assert written.err.count("\n") == 4 + len(report.lines())


def structure(markdown: str) -> list[tuple[str, str]]:
    """Return what a Markdown reader makes of a text besides words: blocks, links with their targets, images, HTML."""
    result = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        for part in (token, *(token.children or ())):
            if part.type not in ("text", "text_special", "inline"):
                target = part.attrs.get("href") or part.attrs.get("src") or ""
                result.append((part.type, str(target) + (part.content if part.type.startswith("html") else "")))
    return result


def written(text: str) -> list[str]:
    """Return what the writers of Markdown make of a text."""
    card = rendering.markdown(finding(text), [(text, "pictures/name-1.png")])
    return ["\n".join(rendering.markdown_lines([record(text)])), rendering.sentence(finding(text)), card]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_keeps_its_structure(text):
    for hostile, plain in zip(written(text), written("words"), strict=True):
        assert structure(hostile) == structure(plain)
        assert "$$" not in hostile
        for line in hostile.split("\n"):
            check_line(line)


class Tags(html.parser.HTMLParser):
    """The tags of a page with their attributes, those in pictures aside, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, Any]] = []
        self.text: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.inside = self.inside or tag == "svg"
        if not self.inside:
            self.tags.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "svg"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_page_keeps_its_tags():
    text = " ".join(HOSTILE[:-1])  # half a surrogate pair is refused where records are read
    hostile, plain = (Tags(rendering.render([record(each)], each, [finding(each)])) for each in (text, "words"))
    assert hostile.tags == plain.tags
    for piece in "".join(hostile.text).split("\n"):
        check_line(piece)


def test_harmless_text_stays_as_it_is():
    for text in (
        "accuracy 0.5000 [0.400, 0.600], p < .001",
        "LoRA (r 16), tiny_llama: 12 items",
        "-0.3333 [-0.403, -0.268]",
        "“né” 50 %",
    ):
        assert printable(text, markdown=True) == printable(text) == text


def card(texts: list[str]) -> str:
    """Render the card of a recorded run with the texts wherever its records have words, all of them where there can be several."""
    trained, text = read_trained(RUNS / "snli_adapter"), " ".join(texts)
    facts, known = copy.deepcopy(trained.facts), trained.evaluation
    facts |= {"commit": text, "precision": text, "date": text, "versions": dict(zip(texts, texts, strict=True))}
    facts["base"] |= {"name": text, "license": text}
    facts["hardware"] |= {"cpu": text, "threads": text}
    facts["data"]["report"] = {**facts["data"]["report"], "dropped": dict.fromkeys(texts, 3)}
    facts["settings"] |= {"optim": text, "lr_scheduler_type": text, "target_modules": texts}
    words = {"title": text, "task": text, "command": text, "policy": dict(zip(texts, texts, strict=True))}
    data = known.record.data | {"name": text, "split": text, "fingerprint": text, "limits": text}
    records = [dataclasses.replace(each, **words, data=data) for each in (known.record, *known.baselines)]
    evaluation = Evaluation(records[0], records[1:], known.scores, [*map(finding, texts)])
    rendered = publication_of(trained).render(Trained(trained.folder, facts, evaluation), "miniature/model")
    return rendered["README.md"].decode()


def test_a_card_keeps_its_structure_and_its_metadata(monkeypatch):
    for name in ("learning_curve", "metric_bars", "confusion_heatmap"):
        monkeypatch.setattr(pictures, name, lambda *_: b"")
    monkeypatch.setattr("common.hub.card.drawn", lambda *_: [])
    texts, bodies = [*HOSTILE[:-1]], []  # half a surrogate pair is refused where records are read
    for rendered in (card(texts), card([f"words {number}" for number in range(len(texts))])):
        _, head, body = rendered.split("---\n", 2)
        assert yaml.safe_load(head)["library_name"] == "peft"
        bodies.append([(kind, target.partition("huggingface.co/")[0]) for kind, target in structure(body)])
        for line in rendered.split("\n"):
            check_line(line)
    assert bodies[0] == bodies[1]
