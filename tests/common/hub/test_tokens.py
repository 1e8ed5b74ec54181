"""A canary for a token: it goes to the Hub in the header of a request, and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.cli import console, errors
from common.miniature import loopback_hub as miniature_hub
from common.miniature.loopback_hub import Handler

ROOT = Path(__file__).parents[3]
CANARY = "hf_" + "Canary" * 5 + "Can1"
ID, LABELS = "miniature/canary", "miniature/labels"


@pytest.fixture
def received(bases, monkeypatch) -> list[bytes]:
    """The bodies of what the Hub is sent; the canary is its token."""
    bodies: list[bytes] = []
    read = Handler._read_body

    def keep(self: Handler) -> bytes:
        bodies.append(read(self))
        return bodies[-1]

    monkeypatch.setattr(Handler, "_read_body", keep)
    monkeypatch.setattr(miniature_hub, "TOKEN", CANARY)
    return bodies


@pytest.fixture
def run(tmp_path):
    """Runs a command with the canary, and looks at what processes are called while it runs; then at what it has printed."""

    def command(*words: object, status: int = 0, token: str = CANARY) -> str:
        environment = {**os.environ, "HF_TOKEN": token, "HF_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
        ended, names = threading.Event(), set[bytes]()

        def watch() -> None:
            while not ended.wait(0.02):
                for path in Path("/proc").glob("[0-9]*/cmdline"):
                    try:
                        names.add(path.read_bytes())
                    except OSError:  # it has ended
                        continue

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            result = subprocess.run(
                [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
            )  # fmt: skip
        finally:
            ended.set()
            watcher.join()
        assert result.returncode == status, result.stderr[-3000:]
        assert any(str(words[-1]).encode() in name for name in names), "the command itself was seen"
        assert not any(token.encode() in name for name in names)
        assert token not in result.stdout + result.stderr
        return result.stderr

    return command


def look(folder: Path, received: list[bytes], log: list[str]) -> None:
    """Looks for the canary in all files, in all that the Hub was sent, and in the addresses that it was asked for."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert not any(CANARY.encode() in body for body in received)
    assert not any(CANARY in line for line in log)


@pytest.mark.slow
def test_nothing_shows_it_while_a_model_is_trained_published_verified_and_used(
    run, received, bases, runs, few, tmp_path
):
    words = [
        "--data_dir",
        few,
        "--max_steps",
        "4",
        "--evaluations",
        "1",
        "--learning_rate",
        "1e-3",
        "--logging_steps",
        "2",
    ]
    push = ["--push_to_hub", "--hub_model_id", ID, "--output_dir", tmp_path / "run"]
    run("-m", "snli_roberta.train_lora", "--method", "lora", *words, *push)
    files = bases.repositories["models", ID].files()
    assert files["README.md"]
    record = json.loads(files["evaluation/record.json"].data)
    assert record["title"] == "LoRA"
    assert record["command"].startswith("python -m snli_roberta.evaluate --model ")
    assert any(b"adapter_config.json" in body for body in received), "uploads were looked at"
    assert list((tmp_path / "run").glob("checkpoint-*/training_args.bin")), "what Trainer pickles was looked at"
    run("-m", "common.hub", "card", tmp_path / "run")
    run("-m", "snli_roberta.predict", "--model", ID, "A dog is wet.", "A pet is dry.")
    run("-m", "common.hub", "publish", runs["sbic_labels"], "--verify", "false", "--repo_id", LABELS)
    (tmp_path / "posts.csv").write_text("post\nhello\n")
    run("-m", "sbic_llama.annotate", tmp_path / "posts.csv", "--adapter", LABELS, "--output", tmp_path / "out.csv")
    run("-m", "sbic_llama.evaluate", "--adapter", LABELS, "--data_dir", few, "--output_dir", tmp_path / "evaluation")
    look(tmp_path, received, bases.log)


@pytest.mark.slow
def test_nothing_shows_it_when_things_go_wrong(run, received, bases, runs, tmp_path):
    publish = ("common.hub", "publish", runs["snli_adapter"], "--verify", "false", "--repo_id", ID)
    assert "rejects this login's token" in run("-m", *publish, status=2, token=CANARY[:-1] + "2")
    assert "ascii" in run("-m", *publish, status=2, token=CANARY + "…")  # as pasted from a page
    for request in ("/whoami", "/preupload/", "^PUT ", "/commit/"):
        bases.fail(request, status=429, headers={"Retry-After": "601"})
        assert "asks to wait 10 min 1 s" in run("-m", *publish, status=75)
    bases.fail("/commit/", status=400)
    run("-m", *publish, status=2)
    code = "import sys; from common.hub import __main__ as hub, upload; upload.files_at = 1; "
    code += f"sys.argv = {list(map(str, publish))}; hub.main()"
    assert "Traceback" in run("-c", code, status=1)
    look(tmp_path, received, bases.log)


@pytest.mark.parametrize(
    ("words", "recipe"),
    [
        (["--token", CANARY], ""),
        ([f"--token={CANARY}"], ""),
        (["--hub_token=short"], ""),
        ([CANARY], ""),
        (["--seed", CANARY], ""),
        ([f"--output_dir={CANARY}", "--push_to_hub", CANARY], ""),
        ([], f"hub_token: {CANARY}"),
        ([], "hub_token: short"),
        ([], f"{CANARY}: 1"),
        ([], f"seed: {CANARY}"),
        ([], f"seed: [{CANARY}"),
        ([], f"method: {CANARY}"),
    ],
)
def test_where_it_does_not_belong_it_is_refused_and_not_repeated(words, recipe, tmp_path, monkeypatch, capsys):
    from snli_roberta import train_lora

    (tmp_path / "recipe.yaml").write_text(recipe)
    words = [*words, "--config", tmp_path / "recipe.yaml"]
    monkeypatch.setattr(sys, "argv", ["train_lora", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        errors.run(train_lora.main)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith("error: ")
    assert CANARY[3:] not in said
    assert "short" not in said


def test_what_is_said_is_without_it(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "an-older-token")
    console.log(f"python -m x --y {CANARY} an-older-token")
    assert capsys.readouterr().err.endswith("python -m x --y hf_… hf_…\n")
    assert str(errors.UserError(f"{CANARY} is wrong", file=f"/x/{CANARY}.csv")) == "/x/hf_….csv: hf_… is wrong"
