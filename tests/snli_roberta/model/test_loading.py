"""What is refused when a classifier or its base is loaded, and what a new head replaces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from common.cli.errors import UserError
from common.models import encoder
from snli_roberta.data.corpus import LABELS, Pair, load_split
from snli_roberta.model import classifier
from snli_roberta.model.classifier import Classifier
from snli_roberta.training.arguments import TrainArguments
from snli_roberta.training.run import train

PAIR = Pair("A dog is wet and old.", "A pet is dry.", label=-1)
load_base = partial(encoder.load_base, labels=LABELS)
load_trained = partial(encoder.load_trained, labels=LABELS)
Edit = Callable[[dict[str, torch.Tensor], dict], None]


def no_head(tensors: dict, config: dict) -> None:
    for name in [name for name in tensors if name.startswith("classifier")]:
        del tensors[name]


def layers(count: int) -> Edit:
    def edit(tensors: dict, config: dict) -> None:
        config["num_hidden_layers"] = count

    return edit


def other_prefix(tensors: dict, config: dict) -> None:
    for name in list(tensors):
        tensors[f"module.{name}"] = tensors.pop(name)


def other_type(tensors: dict, config: dict) -> None:
    config["model_type"] = "electra"
    config["architectures"] = ["ElectraForSequenceClassification"]


def other_width(tensors: dict, config: dict) -> None:
    config["intermediate_size"] = 48


def half_a_pooler(tensors: dict, config: dict) -> None:
    del tensors["bert.pooler.dense.bias"]


FAULTS = {
    "missing layer": (layers(3), r"\d+ tensors missing \(first: 'bert\.encoder\.layer\.2"),
    "surplus layer": (layers(1), r"\d+ tensors beyond its layers \(first: 'bert\.encoder\.layer\.1"),
    "prefix": (other_prefix, r"\d+ tensors missing \(first: 'bert\.embeddings"),
    "type": (other_type, r"\d+ tensors missing \(first: '"),
    "shape": (other_width, r"\d+ tensors of another shape \(first: 'bert\.encoder"),
    "half a pooler": (half_a_pooler, r"1 tensor missing \(first: 'bert\.pooler\.dense\.bias'"),
}


@pytest.fixture(scope="module")
def whole(tiny_base, tmp_path_factory) -> Path:
    """Return the folder of a classifier that was saved from a tiny BERT."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    model, _ = load_base(str(tiny_base("bert")))
    model.save_pretrained(folder)
    encoder.load_tokenizer(str(tiny_base("bert"))).save_pretrained(folder)
    return folder


def edited(folder: Path, to: Path, edit: Edit) -> Path:
    shutil.copytree(folder, to)
    tensors, config = load_file(to / "model.safetensors"), json.loads((to / "config.json").read_text())
    edit(tensors, config)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("load", [load_base, load_trained])
def test_weights_of_another_model_are_refused(load, name, whole, tmp_path):
    edit, message = FAULTS[name]
    with pytest.raises(UserError, match=f"its weights do not match config.json: {message}") as error:
        load(str(edited(whole, tmp_path / "model", edit)))
    assert str(error.value).startswith(f"{tmp_path / 'model'}: ")


def test_only_training_may_begin_with_a_new_head(whole, tmp_path):
    folder = edited(whole, tmp_path / "model", no_head)
    with pytest.raises(UserError, match=r"2 tensors missing \(first: 'classifier\.bias'\)"):
        load_trained(folder)
    assert load_base(str(folder))[1] == ["classifier"]


def test_an_adapter_without_the_head_that_its_base_lacks_is_refused(tiny_base, small_snli, tmp_path):
    from peft import LoraConfig, get_peft_model

    folder = tmp_path / "adapter"
    model, _ = load_base(str(tiny_base("bert")))
    # A BERT for masked words has no pooler, and this adapter keeps only the classifier.
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], modules_to_save=["classifier"])
    model = get_peft_model(model, config)
    model.save_pretrained(folder, save_embedding_layers=False)
    encoder.load_tokenizer(str(tiny_base("bert"))).save_pretrained(folder)
    with pytest.raises(UserError, match=r"neither the adapter nor its base has 'bert\.pooler\.dense\.bias'"):
        load_trained(folder)


def test_an_adapter_is_loaded_where_its_base_is(tiny_base, tmp_path, monkeypatch):
    """PEFT would leave the head on a GPU."""
    from peft import LoraConfig, get_peft_model

    monkeypatch.setattr("peft.peft_model.infer_device", lambda: "meta")
    base = str(tiny_base("roberta"))
    (model, new), tokenizer = load_base(base), encoder.load_tokenizer(base)
    encoder.fit(model, tokenizer, base)
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], modules_to_save=new)
    encoder.save(get_peft_model(model, config), tokenizer, tmp_path, base=base, probe=[PAIR.texts])
    model, _ = load_trained(tmp_path)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_folder_without_tokenizer_files_is_refused(name, tiny_base, tmp_path):
    shutil.copytree(tiny_base(name), tmp_path / "base", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(UserError, match=r"no vocabulary for the tokenizer; expected tokenizer files"):
        encoder.load_tokenizer(str(tmp_path / "base"))


def test_a_tokenizer_of_another_model_is_refused(whole, tiny_base, tmp_path):
    def few_words(tensors: dict, config: dict) -> None:
        config["vocab_size"] = 9
        tensors["bert.embeddings.word_embeddings.weight"] = tensors["bert.embeddings.word_embeddings.weight"][
            :9
        ].clone()

    folder = edited(whole, tmp_path / "model", few_words)
    with pytest.raises(UserError, match=r"model: the tokenizer gives token \d+, but the model has 9"):
        load_trained(folder)


# ---- heads

TASKS = {"bert": 3, "roberta": 3, "distilbert": 2, "modernbert": 3}


@pytest.mark.parametrize("name", TASKS)
def test_a_base_with_a_head_of_its_own_gets_a_new_one(name, tiny_base, tmp_path, capsys):
    """Whatever its number of labels and their order: an MNLI model begins with contradiction."""
    torch.manual_seed(1)
    labels = ("contradiction", "neutral", "entailment")[: TASKS[name]]
    own = AutoModelForSequenceClassification.from_pretrained(
        tiny_base(name), num_labels=len(labels), id2label=dict(enumerate(labels))
    )
    own.save_pretrained(tmp_path)
    models = []
    for seed in (2, 2, 3):
        torch.manual_seed(seed)
        models.append(load_base(str(tmp_path))[0])
    line = f"{tmp_path} has a head of its own ({', '.join(labels)}): a new one replaces it"
    assert capsys.readouterr().err.count(line) == 3
    before, first, again, other = (model.state_dict() for model in (own, *models))
    prefix = own.base_model_prefix
    for key, tensor in first.items():
        assert torch.equal(tensor, again[key]), key
        if key.startswith(f"{prefix}."):
            assert torch.equal(tensor, before[key]), f"{key} belongs to the encoder"
        elif tensor.ndim > 1:
            assert not torch.equal(tensor, other[key]), f"{key} was not drawn"
            assert tensor.shape != before[key].shape or not torch.equal(tensor, before[key]), key
    assert models[0].config.id2label == dict(enumerate(LABELS))


def test_a_pretrained_part_outside_of_the_encoder_is_kept(tiny_base):
    """ModernBERT's last layer before the classifier comes from its pretraining."""
    before = load_file(tiny_base("modernbert") / "model.safetensors")
    model, new = load_base(str(tiny_base("modernbert")))
    assert torch.equal(model.head.dense.weight, before["head.dense.weight"])
    assert new == ["classifier", "head"]


def test_the_untrained_baseline_of_such_a_base_is_not_its_own_classifier(whole, small_snli, tmp_path):
    from snli_roberta.model.evaluation import load_sets, score_baselines
    from snli_roberta.training.arguments import CorpusArguments

    pairs, scored, test = load_sets(CorpusArguments(data_dir=small_snli), None)
    answers = encoder.predict_logits(*load_trained(whole), [pair.texts for pair in test.pairs]).argmax(-1)
    facts = {"base": {"name": str(whole), "commit": None}, "settings": {"max_length": 64}}
    confusions = []
    for seed in range(3):
        common = {"module": "m", "output_dir": tmp_path / str(seed), "seed": seed}
        confusions.append(score_baselines(scored, pairs, test, (whole, facts), **common)[-1].confusion)
    assert any(confusion != scored.confusion(answers) for confusion in confusions)


# ---- lengths


@pytest.mark.parametrize(
    ("name", "limit"),
    [("bert", 512), ("roberta", 512), ("mpnet", 512), ("bart", 512), ("deberta_v3", None), ("llama", None)],
)
def test_the_length_of_position_tables(name, limit, tiny_base):
    from common.models.encoding import longest

    model, _ = load_base(str(tiny_base(name)))
    if name == "roberta":  # positions begin behind the padding token's
        limit = 513 - AutoConfig.from_pretrained(tiny_base(name)).pad_token_id
    assert longest(model) == limit
    end = model.config.eos_token_id if name == "bart" else 7  # BART reads its answer there

    def tokens(count: int) -> torch.Tensor:
        return torch.tensor([[7] * (count - 1) + [end]])

    model(input_ids=tokens(limit or 600))
    if limit:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=tokens(limit + 1))


def test_a_length_without_positions_is_one_line(whole, tiny_base, small_snli, tmp_path):
    message = r"key 'max_length': 513 tokens, but the model has positions for 512; expected at most 512"
    run = TrainArguments(
        output_dir=tmp_path, method="full", learning_rate=1e-3, max_steps=1, max_length=513, data_dir=small_snli,
        model_name_or_path=str(tiny_base("bert")),
    )  # fmt: skip
    with pytest.raises(UserError, match=message):
        train(run)
    model = classifier.load(str(whole))
    with pytest.raises(UserError, match=message):
        model.probabilities([PAIR], max_length=513)
    assert model.probabilities([PAIR], max_length=512).shape == (1, 3)


def test_a_model_from_elsewhere_with_few_positions_uses_them(whole, tmp_path):
    def short(tensors: dict, config: dict) -> None:
        config["max_position_embeddings"] = 20
        key = "bert.embeddings.position_embeddings.weight"
        tensors[key] = tensors[key][:20].clone()

    model = classifier.load(str(edited(whole, tmp_path / "model", short)))
    assert model.max_length == 20
    assert model.probabilities([Pair("A dog is wet. " * 20, "A pet is dry.", label=-1)]).shape == (1, 3)


# ---- architectures


def test_a_model_that_padding_changes_is_refused(tiny_base, monkeypatch):
    tokenizer = encoder.load_tokenizer(str(tiny_base("bert")))
    model, _ = load_base(str(tiny_base("bert")))
    encoder.fit(model, tokenizer, "x")
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids, attention_mask: forward(self, input_ids))
    with pytest.raises(UserError, match="x: its answers change with the padding of a batch"):
        encoder.fit(model, tokenizer, "x")


def test_a_decoder_whose_padding_token_is_its_end_answers_as_the_card(tiny_base, small_snli, tmp_path):
    from tests.snli_roberta.model.test_architectures import plain_probabilities

    base = shutil.copytree(tiny_base("llama"), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(base)
    options = {"max_steps": 1, "evaluations": 1, "learning_rate": 1e-3, "data_dir": small_snli}
    run = TrainArguments(output_dir=tmp_path / "run", method="lora", model_name_or_path=str(base), **options)
    train(run)
    pairs = load_split("test", data_dir=small_snli).pairs
    ours: Classifier = classifier.load(str(tmp_path / "run"))
    np.testing.assert_allclose(
        ours.probabilities(pairs), plain_probabilities(tmp_path / "run", pairs), rtol=0, atol=1e-6
    )


def test_inputs_that_the_model_does_not_take_are_not_given_or_saved(tiny_base, tmp_path):
    """A BERT's tokenizer gives segments; a DistilBERT takes none, and a RoBERTa has one row for them."""
    tokenizer = encoder.load_tokenizer(str(tiny_base("bert")))
    model, _ = load_base(str(tiny_base("distilbert")))
    encoder.fit_tokenizer(tokenizer, model, "x")
    tokenizer.save_pretrained(tmp_path)
    assert list(AutoTokenizer.from_pretrained(tmp_path)("A dog.", "A pet.")) == ["input_ids", "attention_mask"]


# ---- working directories


@pytest.mark.parametrize("place", ["output/run", "elsewhere"])
def test_an_adapter_finds_its_base_from_any_working_directory(place, tiny_base, small_snli, tmp_path, monkeypatch):
    """Whether its folder lies beside the base's or not."""
    from common.hub.card import read_trained

    work, other = tmp_path / "work", tmp_path / "other"
    shutil.copytree(tiny_base("roberta"), work / "models" / "base")
    shutil.copytree(tiny_base("bert"), other / "models" / "base")  # another model by the same relative path
    output = work / place if place == "output/run" else tmp_path / place
    monkeypatch.chdir(work)
    options = {"max_steps": 1, "evaluations": 1, "learning_rate": 1e-3, "data_dir": small_snli}
    train(TrainArguments(output_dir=output, method="lora", model_name_or_path="models/base", **options))
    here = classifier.load(str(output)).probabilities([PAIR])
    monkeypatch.chdir(other)
    assert np.array_equal(classifier.load(str(output)).probabilities([PAIR]), here)
    name = "models/base" if place == "output/run" else str(work / "models" / "base")
    assert read_trained(output).base["name"] == name
    if place == "output/run":  # moved together
        work.rename(tmp_path / "moved")
        moved = tmp_path / "moved" / place
        assert np.array_equal(classifier.load(str(moved)).probabilities([PAIR]), here)
        shutil.rmtree(tmp_path / "moved" / "models")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            UserError, match="its base model 'models/base' is not here; expected models/base in the folder"
        ):
            classifier.load(str(moved))
