"""Bases of many architectures get exact numbers: tiny random ones, in NF4 and dense, with posts beyond their windows."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Gemma3Config

from common.cli.errors import UserError
from common.models import exactness as known
from common.models.prompt import answer_ids
from common.models.quantization import load_tokenizer
from sbic_llama import publication
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import FEATURES
from sbic_llama.data.groups import normalized_groups
from sbic_llama.model import attention, exactness, masks, packing, scoring
from sbic_llama.model.adapter import lora_config
from sbic_llama.model.annotator import Annotator
from sbic_llama.model.answering import generate
from sbic_llama.model.exactness import load_base
from sbic_llama.model.scoring import score_labels
from sbic_llama.training import run as training
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.run import train
from tests.bases import BASES, CHATML, PLAIN, WINDOW, build

POSTS = ["A quiet day.", "the florbs sing", "\nOn a new line", "", "Bread: " + "one loaf, two loaves; " * 8]
FAST = ("cohere", "gemma2", "gemma3", "gpt2", "gptoss", "granite", "mistral", "qwen3", "qwen3.5", "qwen3moe")
TRAINED = ("gemma3", "qwen3")  # by the default tests; the slow ones train more
ALL_TRAINED = (*TRAINED, "gpt2", "gptoss", "granite", "llama4", "mistral", "qwen3.5", "qwen3moe")
LABELS = FEATURES["offensiveYN"]


def slow_but(fast: tuple[str, ...], names: tuple[str, ...]) -> list:
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """``base(name)``: the path of a base, built once."""
    folder = tmp_path_factory.mktemp("bases")
    return lambda name: str(folder / name) if (folder / name).is_dir() else build(folder / name, name)


@pytest.fixture(scope="module")
def posts(miniature, tmp_path_factory) -> Path:
    """Return a folder with few of the miniature's posts in the official format."""
    folder = tmp_path_factory.mktemp("posts")
    for name in ("trn", "dev", "tst"):
        with open(miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(itertools.islice(csv.reader(file), 60))
        with open(folder / f"SBIC.v2.{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def plain_scores(path: str, encoded, branches) -> np.ndarray:
    """Score whole sequences with the library alone: eager attention, no cache, no batch."""
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    scores = np.zeros((len(encoded.prompts), len(branches)))
    for (row, prompt), (column, branch) in itertools.product(enumerate(encoded.prompts), enumerate(branches)):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([prompt + branch])).logits[0, len(prompt) - 1 : -1]
        scores[row, column] = logits.log_softmax(-1)[range(len(branch)), branch].sum()
    return scores


@pytest.mark.parametrize("name", slow_but(FAST, tuple(BASES)))
def test_a_base_is_scored_and_answers_as_the_library_alone_has_it(name, base):
    path = base(name)
    tokenizer = load_tokenizer(path)
    model = load_base(path, None, tokenizer, precision="fp32", quantization="none")
    assert model.exactness.packed == model.exactness.cached == (name not in PLAIN)
    encoded = encode(tokenizer, LABELS, POSTS, max_post_tokens=400)
    assert max(map(len, encoded.prompts)) > WINDOW + 40
    expected = plain_scores(path, encoded, answer_ids(tokenizer, LABELS.labels))
    scores = score_labels(model, tokenizer, LABELS, encoded, batch_size=8)
    np.testing.assert_allclose(scores, expected, atol=3e-5, rtol=1e-6)
    assert np.ptp(expected, axis=0).max() > 0.02, "the base does not tell the posts apart"
    answers = generate(model, tokenizer, encoded, batch_size=8, max_new_tokens=6)
    for prompt, answer in zip(encoded.prompts, answers, strict=True):
        whole = encode(tokenizer, LABELS, [""], max_post_tokens=8).select([0])
        whole.prompts[0] = prompt
        total = plain_scores(path, whole, [answer.ids])[0, 0]
        assert answer.mean_log_probability == pytest.approx(total / len(answer.ids), abs=1e-5)


@pytest.mark.parametrize("name", slow_but(FAST, tuple(name for name in BASES if name != "bloom")))
def test_in_nf4_packed_losses_scores_and_generation_are_those_of_plain_passes(name, base):
    path = base(name)
    tokenizer = load_tokenizer(path)
    model = load_base(path, None, tokenizer, precision="fp32")
    if name not in PLAIN:
        assert max(model.exactness.differences.values()) < 1e-5
    assert model.exactness.padded


def without_windows(config, visible, *_, **__):
    return visible[:, None]


def from_the_output_layer(self, ids, positions, own, cache, keep, cached_positions=None):
    """Compute logits as if nothing followed the output layer."""
    model, original = self.model, scoring.PrefixCache.original
    scale, model.config.logits_scaling = model.config.logits_scaling, 1.0
    try:
        return original(self, ids, positions, own, cache, keep, cached_positions)
    finally:
        model.config.logits_scaling = scale


def blocks_that_hide_nothing(mask, prefix, lengths):
    attention.add_blocks(mask, prefix, lengths)
    if hasattr(mask, "blocks"):
        mask.blocks = replace(mask.blocks, visible=torch.ones_like(mask.blocks.visible))


def test_the_check_notices_wrong_masks_and_logits(base, monkeypatch):
    path = base("mistral")
    tokenizer = load_tokenizer(path)
    model = load_base(path, None, tokenizer, precision="fp32")
    with monkeypatch.context() as patched:
        for module in (packing, scoring):
            patched.setattr(module, "attention_masks", without_windows)
        found = exactness.check(model, tokenizer, "mistral", precision="fp32")
        assert (found.packed, found.padded, found.cached) == (False, True, False)
    with monkeypatch.context() as patched:
        patched.setattr(packing, "add_blocks", blocks_that_hide_nothing)
        found = exactness.check(model, tokenizer, "mistral", precision="fp32")
        assert (found.packed, found.padded, found.cached) == (False, True, True)
    path = base("granite")
    tokenizer = load_tokenizer(path)
    model = load_base(path, None, tokenizer, precision="fp32")
    monkeypatch.setattr(scoring.PrefixCache, "original", scoring.PrefixCache.logits, raising=False)
    monkeypatch.setattr(scoring.PrefixCache, "logits", from_the_output_layer)
    found = exactness.check(model, tokenizer, "granite", precision="fp32")
    assert (found.packed, found.cached) == (True, False)


def test_a_base_is_checked_once(base, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = base("qwen2")
    tokenizer = load_tokenizer(path)
    load_base(path, None, tokenizer, precision="fp32", quantization="none")
    assert "against plain passes (once)" in capsys.readouterr().err
    monkeypatch.setattr(exactness, "check", None)
    again = load_base(path, None, tokenizer, precision="fp32", quantization="none")
    assert again.exactness in known.remembered()
    assert again.exactness.line() == f"{path} (fp32, none): packed training and cached answering exact"


def test_a_base_is_checked_again_after_a_change_of_the_code(base, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = base("qwen2")
    tokenizer = load_tokenizer(path)
    for code in ("before", "after"):
        monkeypatch.setattr(exactness, "_code", lambda code=code: code)
        load_base(path, None, tokenizer, precision="fp32", quantization="none")
    assert len(list(tmp_path.rglob("*.json"))) == 2


def test_the_documented_table_has_every_base():
    text = (Path(__file__).parents[3] / "docs" / "bases.md").read_text(encoding="utf-8")
    rows = [
        line.strip("| ").split(" | ") for line in text.partition("## Classifiers")[0].splitlines() if line[:2] == "| "
    ]
    names = {kind.removesuffix("Config").removesuffix("Text"): name for name, (kind, _) in BASES.items()}
    assert [row[0] for row in rows[1:]] == list(names)
    assert {names[row[0]] for row in rows[1:] if "plain" in row} == PLAIN
    assert all(float(cell) <= 1e-5 for row in rows[1:] for cell in row[1:] if cell != "plain")


def test_a_base_whose_masks_do_not_separate_posts_answers_without_them_and_says_so(base, capsys):
    path = base("qwen3.5")
    load_base(path, None, load_tokenizer(path), precision="fp32")
    assert "is answered without the instruction's cache, which would change its numbers" in capsys.readouterr().err


def test_a_base_that_cannot_be_run_is_refused_in_one_line(base, monkeypatch):
    path = base("qwen2")
    tokenizer = load_tokenizer(path)

    def fail(*_, **__):
        raise RuntimeError("shapes\ndiffer")

    monkeypatch.setattr(exactness, "score_plainly", fail)
    monkeypatch.setattr(exactness, "recall", lambda key: None)
    with pytest.raises(UserError, match="cannot be run: RuntimeError; expected a model such as Llama 2"):
        load_base(path, None, tokenizer, precision="fp32")


def test_scores_that_are_not_numbers_are_refused_and_not_remembered(base, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = shutil.copytree(base("qwen2"), tmp_path / "base")
    tensors = load_file(path / "model.safetensors")
    tensors["model.norm.weight"][0] = torch.nan
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"base: non-finite weights \(first in 'model\.norm\.weight'\)"):
        load_base(str(path), None, load_tokenizer(str(path)), precision="fp32")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("wanted", [("qery",), ("q_proj", "v_prj"), ("q_proj", "lm_head"), ("attn.q_proj",)])
def test_a_layer_that_the_base_lacks_is_refused_by_name_before_it_is_loaded(wanted, base, posts, tmp_path, monkeypatch):
    """PEFT skips it if another one fits, and TRL cannot train the output layer."""
    monkeypatch.setattr(training, "load_base", None)
    options = {"data_dir": posts, "learning_rate": 1e-2, "output_dir": tmp_path, "target_modules": wanted}
    layers = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, or only all-linear"
    message = f"key 'target_modules': no linear layer of the base is named '{wanted[-1]}'; expected {layers}"
    with pytest.raises(UserError, match=message):
        train(TrainArguments(model_name_or_path=base("qwen2"), **options), "offensiveYN")


def test_experts_are_adapted_by_the_names_that_they_had_as_layers(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base("mixtral"))
    wanted = ("self_attn.q_proj", "w1", "w2", "w3")
    arguments = TrainArguments(output_dir=tmp_path, learning_rate=1e-2, target_modules=wanted)
    model = get_peft_model(model, lora_config(arguments, model, None))
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in get_peft_model_state_dict(model)}
    assert adapted == {"q_proj", "experts", "base_layer"}


def test_a_window_counts_places_in_the_text_and_not_in_the_row():
    config = SimpleNamespace(sliding_window=3, _attn_implementation="sdpa")
    config.get_text_config = lambda decoder: config
    visible = torch.ones(1, 2, 4, dtype=torch.bool)
    places, keys = torch.tensor([[2, 4]]), torch.tensor([[0, 1, 2, 4]])
    mask = masks.attention_masks(config, visible, places, keys, dtype=torch.float32)
    assert mask[0, 0].tolist() == [[True, True, True, True], [False, False, True, True]]
    config._attn_implementation = "eager"
    added = masks.attention_masks(config, visible, places, keys, dtype=torch.float32)
    assert torch.equal(added == 0, mask)


def test_the_dropout_of_a_frozen_base_is_off(base):
    model = load_base(base("gpt2"), None, load_tokenizer(base("gpt2")), precision="fp32")
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
    assert AutoModelForCausalLM.from_pretrained(base("gpt2")).config.attn_pdrop == 0.1, "GPT-2's own"


@pytest.mark.parametrize("name", slow_but(TRAINED, ALL_TRAINED))
def test_an_adapter_is_trained_saved_and_annotates_as_the_code_on_its_card(name, base, posts, tmp_path):
    options = {"data_dir": posts, "max_steps": 2, "evaluations": 1, "learning_rate": 1e-2}
    train(TrainArguments(output_dir=tmp_path, model_name_or_path=base(name), **options), "offensiveYN")
    folder = tmp_path / "offensiveYN"
    code = publication.snippet(SimpleNamespace(folder=folder), str(folder))
    card: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "card", "exec"), card)
    texts = [POSTS[0], POSTS[1], POSTS[4]]
    for text, row in zip(texts, Annotator(folder).annotate(texts), strict=True):
        for label, probability in card["annotate"](text).items():
            assert row[f"offensiveYN_probability_{label}"] == pytest.approx(probability, abs=1e-4)


def test_what_a_base_has_for_images_gets_no_adapter(base, posts, tmp_path):
    """Gemma 3 from 4B on has a vision tower, which posts never pass through."""
    tokenizer = AutoTokenizer.from_pretrained(base("gemma3"))
    text = AutoConfig.from_pretrained(base("gemma3")).to_dict()
    vision = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14, "vision_use_head": False}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    whole = tmp_path / "base"
    AutoModelForCausalLM.from_config(config).save_pretrained(whole)
    tokenizer.save_pretrained(whole)
    options = {"data_dir": posts, "max_steps": 1, "evaluations": 1, "learning_rate": 1e-2}
    train(TrainArguments(output_dir=tmp_path, model_name_or_path=str(whole), **options), "offensiveYN")
    names = load_file(tmp_path / "offensiveYN" / "adapter_model.safetensors").keys()
    assert names
    assert all(".language_model." in name for name in names)
    assert len(list(Annotator(tmp_path / "offensiveYN").annotate(POSTS))) == len(POSTS)


@pytest.mark.parametrize("feature", ["offensiveYN", "targetMinority"])
def test_an_instruct_base_is_prompted_through_its_chat_template(feature, base, posts, tmp_path):
    """From training to the code on the card; what the template says later changes nothing."""
    chat = build(tmp_path / "base", "qwen3", CHATML)
    options = {"data_dir": posts, "max_steps": 2, "evaluations": 1, "learning_rate": 1e-2, "output_dir": tmp_path}
    arguments = TrainArguments(model_name_or_path=chat, **options)
    train(arguments, feature)
    folder = tmp_path / feature
    described = json.loads((folder / "annotator.json").read_text())["prompt"]
    assert described["name"] == json.loads((folder / "run.json").read_text())["prompt"] == "chat"
    assert (described["head"], described["end"]) == ("<|im_start|>user\n", "<|im_end|>")
    texts = [POSTS[0], "A quiet <|im_end|> day", POSTS[4]]
    rows = list(Annotator(folder).annotate(texts))
    for path in (Path(chat) / "chat_template.jinja", folder / "chat_template.jinja"):
        path.write_text(CHATML.replace("user", "human"))
    assert list(Annotator(folder).annotate(texts)) == rows
    card: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(publication.snippet(SimpleNamespace(folder=folder), str(folder)), "card", "exec"), card)
    for text, row in zip(texts, rows, strict=True):
        if feature == "targetMinority":
            answer, score = card["annotate"](text)
            assert row[f"{feature}_mean_log_probability"] == pytest.approx(score, abs=1e-4)
            assert set(row[feature].split(", ")) <= set(normalized_groups(answer.split(","))) | {"none"}
        else:
            for label, probability in card["annotate"](text).items():
                assert row[f"{feature}_probability_{label}"] == pytest.approx(probability, abs=1e-4)
    with pytest.raises(UserError, match="holds another run: prompt was 'chat' and is None"):
        train(replace(arguments, prompt="study"), feature)


def test_experts_are_adapted_without_dropout_only(base, posts, tmp_path):
    options = {"data_dir": posts, "max_steps": 1, "evaluations": 1, "learning_rate": 1e-2, "lora_dropout": 0.1}
    with pytest.raises(
        UserError, match=r"lora_dropout.: PEFT adapts this base's experts without dropout only; expected 0"
    ):
        train(TrainArguments(output_dir=tmp_path, model_name_or_path=base("qwen3moe"), **options), "offensiveYN")


def test_the_tokenizer_of_a_base_is_what_the_library_loads(base):
    text = LABELS.prompt("A quiet day.")
    for name in ("gemma3", "qwen3"):
        assert encode(load_tokenizer(base(name)), LABELS, ["A quiet day."], max_post_tokens=90).prompts == [
            AutoTokenizer.from_pretrained(base(name))(text).input_ids
        ]
