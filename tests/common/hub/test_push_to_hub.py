"""``--push_to_hub`` on the training scripts: one publication at the end, of a scored model; and how long a run would take."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from common.cli.errors import UserError
from common.hub import upload
from sbic_llama.training.arguments import TrainArguments as SbicArguments
from sbic_llama.training.run import estimate as estimate_sbic
from sbic_llama.training.run import train as train_sbic
from snli_roberta.training.arguments import TrainArguments as SnliArguments
from snli_roberta.training.run import estimate as estimate_snli
from snli_roberta.training.run import train as train_snli
from tests import forked

ROOT = Path(__file__).parents[3]
ID = "miniature/pushed"


def command(script: str, few: Path, folder: Path, *more: str) -> list[str]:
    words = ["--data_dir", str(few), "--output_dir", str(folder), "--max_steps", "4", "--evaluations", "1"]
    words += ["--learning_rate", "1e-3", "--logging_steps", "2", "--push_to_hub", "--hub_model_id", ID]
    return ["-m", script, *words, *more]


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
def test_two_processes_score_publish_and_verify_once_and_the_same_command_again_publishes_nothing(bases, few, tmp_path):
    words = ["--config_file", "accelerate_config.yaml", "--num_processes", "2"]
    words += command("sbic_llama.train_offensive_yn", few, tmp_path / "run", "--hub_private")
    first, again = (forked.launch(words, ACCELERATE_USE_CPU="true") for _ in range(2))
    for result in (first, again):
        assert result.returncode == 0, result.stderr[-3000:]
        assert (
            len(re.findall(rf"^verified: {ID}: \d+ of \d+ answers match the record", result.stdout, re.MULTILINE)) == 1
        )
    assert [line for line in bases.log if line.startswith("POST") and "/commit/" in line] == [
        f"POST /api/models/{ID}/commit/main"
    ]
    repository = bases.repositories["models", ID]
    assert repository.private
    assert len(repository.commits) == 2
    record = json.loads(repository.files()["evaluation/record.json"].data)
    assert record["title"] == "QLoRA"
    assert record["command"].startswith("python -m sbic_llama.evaluate --adapter ")
    assert "hub_model_id" not in json.loads(repository.files()["training.json"].data)["settings"]
    assert "push" not in (tmp_path / "run" / "offensiveYN" / "run.json").read_text()
    assert "Failed to load" not in first.stderr
    assert "finished already" in again.stderr
    assert "nothing was uploaded" in again.stderr


def test_what_cannot_be_published_is_refused_before_the_training(bases, few, tmp_path, monkeypatch):
    shared = {"data_dir": few, "learning_rate": 1e-3, "max_steps": 2, "push_to_hub": True}
    with pytest.raises(UserError, match=r"push_to_hub.*: no repository to publish to. Give --hub_model_id"):
        SnliArguments(output_dir=tmp_path, method="full", **shared)
    for alone in ({"hub_model_id": ID}, {"hub_private": True}, {"hub_overwrite": True}):
        with pytest.raises(UserError, match=r"has no effect without --push_to_hub\. Add --push_to_hub") as caught:
            SnliArguments(output_dir=tmp_path, method="full", **{**shared, "push_to_hub": False}, **alone)
        assert caught.value.key in alone
    with pytest.raises(UserError, match="this login may not write to 'somebody'"):
        train_snli(SnliArguments(output_dir=tmp_path / "a", method="full", hub_model_id="somebody/x", **shared))
    local = {"model_name_or_path": str(ROOT / "common" / "miniature" / "models" / "tiny_llama"), "hub_model_id": ID}
    with pytest.raises(UserError, match="is a folder on this machine, which others cannot get"):
        train_sbic(SbicArguments(output_dir=tmp_path / "b", **local, **shared), "offensiveYN")
    HfApi().create_repo(ID)
    HfApi().upload_file(repo_id=ID, path_in_repo="README.md", path_or_fileobj=b"a thesis")
    with pytest.raises(UserError, match=r"files that this project did not publish.*--hub_overwrite"):
        train_snli(SnliArguments(output_dir=tmp_path / "c", method="full", hub_model_id=ID, **shared))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_what_a_training_may_overwrite_its_publication_may(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(
        upload.subprocess, "run", lambda words, **_: commands.append(words) or SimpleNamespace(returncode=0)
    )
    for overwrite in (False, True):
        options = SbicArguments(
            output_dir=tmp_path, learning_rate=1, push_to_hub=True, hub_model_id=ID, hub_overwrite=overwrite
        )
        upload.publish_if_asked(options, tmp_path, ["evaluate"], [])
        assert ("--overwrite" in commands[-1]) == overwrite
    monkeypatch.setattr(upload, "check_access", lambda *_, **__: None)
    monkeypatch.setattr(upload, "check_target", lambda *_: pytest.fail("it may be replaced"))
    upload.check_publishing(options, {"base": {"name": "miniature/tiny_llama", "commit": None}})


@pytest.mark.parametrize("project", ["sbic", "snli"])
def test_an_estimate_trains_and_leaves_nothing(project, few, tmp_path):
    shared = {"output_dir": tmp_path / "run", "data_dir": few, "learning_rate": 1e-3, "estimate_only": True}
    if project == "sbic":
        text = str(estimate_sbic(SbicArguments(**shared), "offensiveYN"))
    else:
        text = str(estimate_snli(SnliArguments(method="full", **shared)))
    steps = {"sbic": 3 * 10, "snli": 3 * 19}[project]  # 150-odd posts in batches of 16, some 600 pairs in batches of 32
    match = re.search(
        r"about (?:\d+ min )?\d+ s on this machine for (\d+) steps of (\d+\.\d\d) s and 6 validations", text
    )
    assert match, text
    assert abs(int(match[1]) - steps) <= 6
    assert float(match[2]) > 0
    assert not (tmp_path / "run").exists()
