"""Cards, whole, of four kinds of runs recorded on the miniature (``runs/``), against what they should be (``cards/``).

After a change that is meant, ``python tests/common/hub/test_card.py`` writes ``cards/`` anew; read the difference.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard

from common.cli.errors import UserError
from common.hub.card import Trained, read_trained
from common.hub.package import publication_of
from tests.strict_hub import problems

HERE = Path(__file__).parent
KINDS = ("sbic_labels", "sbic_groups", "snli_full", "snli_adapter")
REPO = "miniature/model"


def rendered(trained: Trained) -> dict[str, bytes]:
    return publication_of(trained).render(trained, REPO)


def text(trained: Trained) -> str:
    return rendered(trained)["README.md"].decode()


@pytest.fixture
def run(tmp_path):
    """A copy of a recorded run, its training record changed."""

    def copy(name: str, **changes) -> Trained:
        folder = shutil.copytree(HERE / "runs" / name, tmp_path / name)
        facts = json.loads((folder / "training.json").read_text())
        for key, value in changes.items():
            facts[key] = {**facts[key], **value} if isinstance(value, dict) else value
        (folder / "training.json").write_text(json.dumps(facts))
        return read_trained(folder)

    return copy


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_is_what_it_should_be(kind):
    files = rendered(read_trained(HERE / "runs" / kind))
    assert files["README.md"].decode() == (HERE / "cards" / f"{kind}.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]*\]\((pictures/[a-z0-9_-]+\.png)\)", files["README.md"].decode())
    assert {name for name in files if name != "README.md"} == set(shown)
    assert {"pictures/scores.png", "pictures/confusion.png", "pictures/learning_curve.png"} <= set(shown)
    assert len(shown) == len(set(shown)) == {"sbic_labels": 19, "sbic_groups": 7}.get(kind, 3)
    assert all(files[name].startswith(b"\x89PNG") for name in files if name.endswith(".png"))
    assert files == rendered(read_trained(HERE / "runs" / kind)), "the same folder gives the same card"


@pytest.mark.parametrize("kind", KINDS)
def test_a_cards_metadata_is_complete_and_what_the_hub_takes(kind, hub):
    card = ModelCard((HERE / "cards" / f"{kind}.md").read_text(encoding="utf-8"))
    card.validate()  # asks the Hub
    data = card.data
    adapter = kind != "snli_full"
    assert data.base_model == f"miniature/{'tiny_llama' if kind.startswith('sbic') else 'tiny_roberta'}"
    assert data.base_model_relation == ("adapter" if adapter else "finetune")
    assert data.library_name == ("peft" if adapter else "transformers")
    assert data.pipeline_tag == ("text-generation" if kind.startswith("sbic") else "text-classification")
    assert (data.license, data.language) == ("apache-2.0", "en")
    assert data.tags
    assert data.metrics
    assert len(data.eval_results) == (11 if kind == "sbic_groups" else 8)
    record = json.loads((HERE / "runs" / kind / "evaluation" / "record.json").read_text())
    assert data.eval_results[0].metric_value == round(next(iter(record["metrics"].values()))["value"], 4)
    assert {result.dataset_split for result in data.eval_results} == {"test"}
    assert "[More Information Needed]" not in card.text


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("license: llama-2", '"license" must be one of'),
        ("base_model: /home/me/llama", '"base_model" with value'),
        ("pipeline_tag: annotating", '"pipeline_tag" must be one of'),
        ("base_model_relation: child", '"base_model_relation" must be one of'),
        ("model-index: [{results: [{task: {}, dataset: {}}], name: x}]", r"results\[0\].task.type"),
    ],
)
def test_the_hubs_rules_are_kept_by_the_miniatures(wrong, complaint, hub):
    HfApi().create_repo(REPO)
    with pytest.raises(ValueError, match=complaint):
        HfApi().upload_file(repo_id=REPO, path_in_repo="README.md", path_or_fileobj=f"---\n{wrong}\n---\n".encode())
    assert "README.md" not in hub.repositories["models", REPO].files()


LLAMA = {
    "base": {
        "name": "meta-llama/Llama-2-7b-hf",
        "commit": "01c7f73d771dfac7d292323805ebc428287df4f9",
        "license": "llama2",
    }
}


def on_sbic(trained: Trained) -> Trained:
    """As if the run had been on the real corpus."""
    for path in trained.folder.rglob("*.json"):
        content = (
            path.read_text().replace("the SBIC miniature", "SBIC v2").replace('"miniature": true', '"miniature": false')
        )
        path.write_text(content.replace("miniature/tiny_llama", "meta-llama/Llama-2-7b-hf"))
    return read_trained(trained.folder)


def test_a_derivative_of_llama_2_on_the_real_corpus_says_so(run):
    trained = on_sbic(run("sbic_labels", **LLAMA))
    files = rendered(trained)
    card = ModelCard(files["README.md"].decode())
    assert problems(str(card)) == []
    assert card.data.license == "llama2"
    assert card.data.datasets == ["allenai/social_bias_frames"]
    assert {result.dataset_type for result in card.data.eval_results} == {"allenai/social_bias_frames"}
    words = " ".join(card.text.split())
    assert "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms" in words
    assert "The corpus: CC BY 4.0." in words
    assert "01c7f73d771dfac7d292323805ebc428287df4f9" in words
    assert "the SBIC miniature" not in words
    assert "Miniature model" not in words
    import yaml

    (entry,) = yaml.safe_load(files[".eval_results/offensiveYN.yaml"])
    assert entry["dataset"] == {"id": "allenai/social_bias_frames", "task_id": "offensiveYN"}
    metric = trained.evaluation.record.metrics["accuracy"]
    assert entry["value"] == round(metric["value"], 4)
    assert f"n = {metric['n']}, 95 % interval [{metric['ci95'][0]:.4f}" in entry["notes"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"license": None}}, "the card needs the base model.s license"),
        ({"commit": ""}, "the card needs the commit of the code"),
        ({"kind": "../../evil"}, "a model of kind '../../evil'; expected full or adapter"),
        ({"project": "os"}, "trained by 'os'; expected sbic_llama or snli_roberta"),
    ],
)
def test_a_missing_or_foreign_value_is_an_error(run, changes, message):
    with pytest.raises(UserError, match=message):
        rendered(run("snli_adapter", **changes))


def test_a_missing_field_of_the_training_is_an_error(run):
    trained = run("snli_adapter")
    trained.facts.pop("base")
    (trained.folder / "training.json").write_text(json.dumps(trained.facts))
    with pytest.raises(UserError, match=r"not a training record: base: Field required"):
        read_trained(trained.folder)


def test_what_was_not_recorded_is_left_out(run):
    trained = run("sbic_labels")
    shutil.rmtree(trained.folder / "evaluation")
    files = rendered(read_trained(trained.folder))
    shown = files["README.md"].decode()
    assert "## Results" not in shown
    assert "model-index" not in shown
    assert "## Training procedure" in shown
    assert list(files) == ["README.md", "pictures/learning_curve.png"]


def test_a_corpus_cannot_write_into_the_card(run):
    trained = run("sbic_labels")
    path = trained.folder / "evaluation" / "record.json"
    record = json.loads(path.read_text())
    record["by_group"]["source"]["x | y\n## Buy this <script>[now](evil)`"] = {
        **record["metrics"]["accuracy"],
        "value": 0.001,  # the lowest, so that a sentence names it too
    }
    path.write_text(json.dumps(record))
    shown = text(read_trained(trained.folder))
    sentence, line = (line for line in shown.splitlines() if "Buy this" in line)
    assert line.startswith("| x   y ## Buy this")
    assert not set("<>`") & set(line.split("|")[1])
    assert "x   y ## Buy this" in sentence
    assert not re.search(r"(?<!\\)\]\(evil\)", shown), "an escaped bracket makes no link"


def test_code_from_another_repository_does_not_get_onto_the_card(run):
    trained = run("snli_full", settings={"max_length": "__import__('os').system('true')"})
    with pytest.raises(UserError, match=r"max_length is .*expected an integer"):
        text(trained)


if __name__ == "__main__":
    for kind in KINDS:
        (HERE / "cards" / f"{kind}.md").write_text(text(read_trained(HERE / "runs" / kind)), encoding="utf-8")
