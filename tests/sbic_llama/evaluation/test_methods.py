"""Test the methods section: only what records hold, and nothing in them is markup."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.results.finding import Finding, Measures
from common.results.record import read_record
from common.stats.agreement import ALIKE, EVERYWHERE, PEOPLE
from sbic_llama import methods
from sbic_llama.evaluation.methods_section import Records, Writer, render, share

RESULTS = Path(__file__).parents[3] / "results"
RECORD = RESULTS / "sbic_smollm2" / "sbic-offensiveYN-4-qlora.json"
HOSTILE = "50%_a&b \\input{/etc/passwd} ~^#$[x]<|>"


def prevalence(folder: Path, name: str = "prevalence", facts: dict | None = None, *, miniature: bool = False) -> Path:
    row = {"value": 0.25, "n": 90, "ci95": [0.201, 0.304]}
    if facts is None:
        facts = {"posts": 1700, "human labels": 90, "shares of": "file", "strata": 3, "effective sample size": 71.4}
    rows = {f"{HOSTILE}: people and machine": row, f"{HOSTILE}: machine alone, as if right": row | {"value": 0.31}}
    part = Measures("Share of posts", "class and labels", "share", rows)
    data = {"name": "posts.csv", "split": "all", "fingerprint": "0"}
    finding = Finding(name, "How many?", HOSTILE, "model", ["Words"], [part], "None", data, facts, miniature)
    finding.write(folder / f"{name}.json")
    return folder / f"{name}.json"


def test_scores_are_those_of_the_record_and_what_no_record_holds_is_left_out():
    text, works = render(Records(records=[(RECORD, read_record(RECORD))]), "latex")
    measure = read_record(RECORD).metrics["balanced_accuracy"]
    low, high = measure["ci95"]
    assert f"balanced accuracy = {share(measure['value'])}, 95\\% CI {{[}}{share(low)}, {share(high)}{{]}}" in text
    assert not re.search("fine-tuned|Alternative|shares|invented|cite", text)
    assert works.strip() == ""


def test_a_training_names_its_own_base_whatever_else_has_records():
    training = {
        "settings": {"r": 16, "lora_alpha": 32}, "hardware": {"cpu": "a CPU"}, "precision": "fp32", "seconds": 60,
        "data": {"used": 100, "validation": 20}, "parameters": {"total": 1000, "trainable": 10}, "versions": {},
        "base": {"name": "user/the-base", "commit": "0123"},
    }  # fmt: skip
    text, _ = render(Records(trainings=[(Path("a/training.json"), training)]), "markdown")
    assert r"We fine-tuned user/the-base (revision 0123) by low-rank adaptation" in text.replace("\\", "")


def test_alphas_of_one_sentence_are_of_the_same_items(tmp_path):
    alpha = {
        name: {"value": value, "n": n, "ci95": [value, value]}
        for name, value, n in ((EVERYWHERE, 0.9, 80), (ALIKE, 0.4, 30), (PEOPLE, 0.5, 30))
    }
    path = prevalence(tmp_path, "agreement", {"coefficients": {"Krippendorff's alpha": alpha}})
    records = Records()
    records.add(path)
    text, _ = render(records, "markdown")
    assert ".40" in text
    assert ".90" not in text


@pytest.mark.parametrize(("value", "text"), [(0.742, ".74"), (-0.081, "-.08"), (1.0, "1.00"), (-0.001, ".00")])
def test_numbers_look_as_in_papers(value, text):
    assert share(value) == text


def test_nothing_in_a_record_is_markup(tmp_path):
    for form in ("latex", "markdown"):
        records = Records()
        records.add(prevalence(tmp_path))
        text, works = render(records, form)
        assert Writer(form).escape(HOSTILE) in text and "\\input{" not in text
        assert ".25, 95" in text and "1,700" in text and "effective sample size 71" in text and ": .31)" in text
        assert re.findall(r"@\w+{(\w+),", works) == ["egami2023using"]
    assert Writer("latex").escape("\\input{a}") == "\\textbackslash{}input\\{a\\}"


@pytest.mark.parametrize("miniature", [True, False])
def test_a_finding_on_invented_texts_says_so(tmp_path, miniature):
    records = Records()
    records.add(prevalence(tmp_path, miniature=miniature))
    assert ("about invented texts" in render(records, "markdown")[0]) == miniature


def test_every_work_that_the_words_cite_has_an_entry_and_the_other_way_round():
    folder = Path(methods.__file__).parent / "evaluation" / "templates"
    words, works = ((folder / name).read_text(encoding="utf-8") for name in ("methods.jinja", "works.bib"))
    cited = {key for call in re.findall(r"cite\(([^)]*)\)", words) for key in re.findall(r'"(\w+)"', call)}
    assert cited == set(re.findall(r"^@\w+{(\w+),$", works, re.MULTILINE))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX")
def test_latex_compiles(tmp_path):
    records = Records(records=[(RECORD, read_record(RECORD))])
    records.add(prevalence(tmp_path))
    preamble = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{textcomp}\\begin{document}\n"
    (tmp_path / "m.tex").write_text(preamble + render(records, "latex")[0] + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "m.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)


def test_findings_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(UserError, match="a finding on calibration; expected one on agreement or prevalence or regr"):
        Records().add(prevalence(tmp_path, "calibration"))
    records = Records()
    records.add(prevalence(tmp_path, facts={}))
    with pytest.raises(UserError, match="incomplete facts"):
        render(records, "markdown")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no records"):
        records.add(tmp_path / "empty")


def test_the_command_overwrites_nothing(tmp_path, monkeypatch):
    output = tmp_path / "methods.md"
    monkeypatch.setattr("sys.argv", ["methods", str(prevalence(tmp_path)), "--output", str(output)])
    methods.main()
    written = output.read_text(encoding="utf-8")
    assert "[@egami2023using]" in written and output.with_suffix(".bib").is_file()
    with pytest.raises(UserError, match="already exists"):
        methods.main()
    assert output.read_text(encoding="utf-8") == written
