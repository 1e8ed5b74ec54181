"""All sides do the same job: on the miniature's tiny Llama they give the same answers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from benchmarks import engines, inference
from benchmarks.jobs import OURS, agreement
from benchmarks.processes import Setting
from common.runtime.project import MINIATURE_MODELS

POSTS = 24


@pytest.fixture(scope="module")
def setting(miniature, tmp_path_factory):
    from sbic_llama.training.arguments import TrainArguments
    from sbic_llama.training.run import train

    output = tmp_path_factory.mktemp("adapter")
    train(TrainArguments(output_dir=output, learning_rate=2e-3, max_steps=60, evaluations=1), "offensiveYN")
    return Setting(
        sbic_dir=str(miniature / "SBIC.v2"),
        snli_dir=str(miniature / "snli_1.0"),
        scratch=str(output),
        llama=str(MINIATURE_MODELS / "tiny_llama"),
        adapters={"offensiveYN": str(output / "offensiveYN")},
        most=POSTS,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "package"),
    [
        (inference.generate_each, "transformers"),
        (inference.post_pipeline, "transformers"),
        (inference.harness, "lm_eval"),
        (engines.llama_cpp_8_label, "xllamacpp"),
        (engines.llama_cpp_8_token, "xllamacpp"),
    ],
)
def test_every_tool_answers_as_ours(setting, load, package, tmp_path, monkeypatch):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    ours = inference.annotator_labels(setting)(POSTS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # keeps GGUF files
    theirs = load(replace(setting, precision="fp32"))(POSTS // 2)
    assert (ours.items, theirs.items) == (POSTS, POSTS // 2)
    assert agreement("classification", {OURS: ours, "theirs": theirs})["theirs"] >= 0.9
    assert 0 < ours.flops / ours.items < theirs.flops / theirs.items, "the instruction is read once"
