"""Tests of the methods section: only what records hold, and nothing in them is markup."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.results.finding import Finding, Measures
from common.results.record import read_record
from sbic_llama.evaluation.methods_section import Records, latex, markdown, render, share

RECORD = Path("results/sbic_smollm2/sbic-offensiveYN-4-qlora.json")
HOSTILE = "50%_a&b \\input{/etc/passwd} ~^#$[x]<|>"


def prevalence(folder: Path, name: str = "prevalence", facts: dict | None = None) -> Path:
    row = {"value": 0.25, "n": 90, "ci95": [0.201, 0.304]}
    facts = {"posts": 700, "human labels": 90, "shares of": "file"} if facts is None else facts
    part = Measures("Share of posts", "class and labels", "share", {f"{HOSTILE}: people": row})
    data = {"name": "posts.csv", "split": "all", "fingerprint": "0"}
    finding = Finding(name, "How many?", HOSTILE, "model", ["Words"], [part], "None", data, facts)
    finding.write(folder / f"{name}.json")
    return folder / f"{name}.json"


def test_scores_are_those_of_the_record():
    text = render(Records(records=[(RECORD, read_record(RECORD))]), "latex")
    measure = read_record(RECORD).metrics["balanced_accuracy"]
    low, high = measure["ci95"]
    assert f"balanced accuracy = {share(measure['value'])}, 95\\% CI {{[}}{share(low)}, {share(high)}{{]}}" in text
    assert "low-rank" not in text and "Alternative" not in text and "Shares" not in text


@pytest.mark.parametrize(("value", "text"), [(0.742, ".74"), (-0.081, "-.08"), (1.0, "1.00"), (-0.001, ".00")])
def test_numbers_look_as_in_papers(value, text):
    assert share(value) == text


def test_nothing_in_a_record_is_markup(tmp_path):
    records = Records()
    records.add(prevalence(tmp_path))
    for written_as, escape in (("latex", latex), ("markdown", markdown)):
        text = render(records, written_as)
        assert escape(HOSTILE) in text and "\\input{" not in text
        assert ".25, 95" in text and "700" in text
    assert latex("\\input{a}") == "\\textbackslash{}input\\{a\\}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX")
def test_latex_compiles(tmp_path):
    records = Records(records=[(RECORD, read_record(RECORD))])
    records.add(prevalence(tmp_path))
    preamble = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{textcomp}\\begin{document}\n"
    (tmp_path / "m.tex").write_text(preamble + render(records, "latex") + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "m.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)


def test_findings_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(UserError, match="calibration"):
        Records().add(prevalence(tmp_path, "calibration"))
    records = Records()
    records.add(prevalence(tmp_path, facts={}))
    with pytest.raises(UserError, match="incomplete facts"):
        render(records, "markdown")


def test_command_overwrites_nothing(tmp_path):
    output = tmp_path / "methods.md"
    command = [sys.executable, "-m", "sbic_llama.methods", str(prevalence(tmp_path)), "--output", str(output)]
    assert subprocess.run(command, check=False).returncode == 0
    written = output.read_text()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 2
    assert output.read_text() == written
