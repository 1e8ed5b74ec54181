"""Test training on the miniature: loss, batches, memory estimate, saved files, stop and resume, refusals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.miniature import cache as corpora
from common.miniature.pretrain import MODELS
from common.models import step_memory
from common.models.quantization import load_base
from common.results.record import count_parameters
from common.runtime import hardware
from common.training.callbacks import Interrupted
from common.training.run import RunContext
from sbic_llama.data.corpus import load_splits
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import FEATURES
from sbic_llama.model import adapter as adapters
from sbic_llama.model import description as annotator_file
from sbic_llama.model.packing import IGNORED
from sbic_llama.model.scoring import score_labels
from sbic_llama.training import forecast, memory
from sbic_llama.training import run as training
from sbic_llama.training.arguments import FeatureArguments, TrainArguments
from sbic_llama.training.run import train
from tests import forked
from tests.bases import BASES
from tests.forked import Forked, until

LIBRARIES_BYTES, T4_BYTES = 800e6, 15e9
ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("small_miniature_for_module")
RECIPES = ROOT / "sbic_llama" / "recipes"
SCRIPTS = {
    "hasBiasedImplication": "train_has_biased_implication",
    "offensiveYN": "train_offensive_yn",
    "targetMinority": "train_target_minority",
}


def arguments(folder: Path, **changes) -> TrainArguments:
    base = {"learning_rate": 2e-3, "max_steps": 4, "logging_steps": 1, "evaluations": 2}
    return TrainArguments(output_dir=folder, **{**base, **changes})


def facts(folder: Path, name: str = "offensiveYN") -> dict:
    return json.loads((folder / name / "training.json").read_text())


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(entry["loss"], entry["grad_norm"]) for entry in facts(folder)["log"] if "grad_norm" in entry]


def validations(folder: Path) -> list[tuple[float, float]]:
    return [
        (entry["eval_loss"], entry["eval_balanced_accuracy"]) for entry in facts(folder)["log"] if "eval_loss" in entry
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- recipes and scripts


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_parses_and_shows_a_launch_line_that_does(path):
    (shown,) = re.findall(r"# Launch: .*-m sbic_llama\.(\w+) --config (\S+)", path.read_text())
    parse(FeatureArguments if shown[0] == "train" else TrainArguments, ["--config", str(path)])
    assert shown[0] in {*SCRIPTS.values(), "train"}
    assert ROOT / shown[1] == path


# Parameters as the Hub counts them in the bases' files.
PARAMETERS = {
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "Qwen/Qwen3-4B-Instruct-2507": 4_022_468_096,
    "google/gemma-3-4b-it": 4_300_079_472,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "TinyLlama/TinyLlama_v1.1": 1_100_048_384,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
}


@pytest.mark.parametrize("base", forecast.CONFIGS)
def test_the_configuration_of_a_base_has_its_number_of_parameters(base):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(forecast.CONFIGS[base])
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[base]


def test_the_table_of_bases_has_their_forecasts_and_each_fits_a_t4(monkeypatch):
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: True)  # the table is of GPUs
    rows = re.findall(
        r"^\| `(\S+/\S+)` \| .* \| ([\d.]+) GB \|", (ROOT / "docs" / "train.md").read_text(), re.MULTILINE
    )
    known = {each.base: each.memory for each in forecast.forecasts("--precision", "bf16") if each.recipe.stem == "gpu"}
    assert rows == [(base, f"{memory / 1e9:.1f}") for base, memory in known.items()]
    assert max(known.values()) + LIBRARIES_BYTES < T4_BYTES


def test_the_scripts_differ_in_their_feature_only():
    texts = []
    for name, script in SCRIPTS.items():
        text = (ROOT / "sbic_llama" / f"{script}.py").read_text()
        code = text[text.index("from __future__") :]
        assert f'FEATURE = "{name}"' in code
        texts.append(code.replace(name, "").replace(script, ""))
    assert len(set(texts)) == 1


def test_the_study_trains_39_98_million_of_6_74_billion_parameters():
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from common.results.record import count_parameters

    recipe = parse(TrainArguments, ["--config", str(RECIPES / "study.yaml")])
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig())  # transformers' default is Llama 2's 7B shape
        result = count_parameters(get_peft_model(model, adapters.lora_config(recipe, model, None)))
    assert (result["trainable"], result["total"] - result["trainable"]) == (39_976_960, 6_738_415_616)
    assert (recipe.lora_alpha, recipe.seed, recipe.learning_rate, recipe.wording) == (64, 33, 2e-4, "study")


# ---- the loss


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """Return the folder of four steps of 16 posts; do not modify it."""
    folder = tmp_path_factory.mktemp("plain")
    train(arguments(folder, per_device_train_batch_size=16), "offensiveYN")
    return folder


def test_accumulation_changes_neither_loss_nor_gradient(plain, tmp_path):
    train(arguments(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=4), "offensiveYN")
    assert len(losses(plain)) == 4
    np.testing.assert_allclose(losses(tmp_path), losses(plain), rtol=2e-3)
    np.testing.assert_allclose(validations(tmp_path), validations(plain), rtol=2e-3)


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
def test_two_processes_change_neither_loss_nor_gradient(plain, tmp_path):
    command = [
        "--config_file", "accelerate_config.yaml", "--num_processes", "2", "-m",
        "sbic_llama.train_offensive_yn", "--output_dir", tmp_path / "two", "--learning_rate", "2e-3",
        "--max_steps", "4", "--logging_steps", "1", "--evaluations", "2", "--per_device_train_batch_size", "8",
    ]  # fmt: skip
    result = forked.launch(command, ACCELERATE_USE_CPU="true")
    assert result.returncode == 0, result.stderr[-3000:]
    assert facts(tmp_path / "two")["processes"] == 2
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(plain), rtol=2e-3)
    np.testing.assert_allclose(validations(tmp_path / "two"), validations(plain), rtol=2e-3)


def test_dropout_gives_every_post_its_own_instruction(tmp_path, monkeypatch):
    shared = []
    collator = training.SharedInstruction
    monkeypatch.setattr(
        training, "SharedInstruction", lambda *given, share: shared.append(share) or collator(*given, share=share)
    )
    train(arguments(tmp_path / "without", max_steps=1, evaluations=1), "offensiveYN")
    train(arguments(tmp_path / "with", max_steps=1, evaluations=1, lora_dropout=0.1), "offensiveYN")
    assert shared == [True, False]
    log = [facts(tmp_path / name)["log"][0] for name in ("without", "with")]
    assert "num_tokens" not in log[0], "TRL counts the entries of the mask, and Trainer's own count is there"
    assert log[1]["num_input_tokens_seen"] > 2 * log[0]["num_input_tokens_seen"] > 600


def test_activation_checkpointing_changes_nothing(plain, tmp_path):
    train(arguments(tmp_path, per_device_train_batch_size=16, activation_checkpointing=True), "offensiveYN")
    np.testing.assert_allclose(losses(tmp_path), losses(plain), rtol=1e-4)


def built(folder: Path, count: int, name: str = "offensiveYN", **changes):
    """Build a trainer on the miniature's first posts, validating on the next nine, and its first batch."""
    run = arguments(folder, **changes)
    split = load_splits(data_dir=corpora.build() / "SBIC.v2")["train"]
    context = RunContext(1, changes.get("precision", "fp32"))
    posts, dev_posts = split.posts[:count], split.posts[count : count + 9]
    data = training.TrainingData(FEATURES[name], split, posts, dev_posts, None, {})
    trainer = training.build_trainer(run, context, data)
    pairs = zip(trainer.rows.input_ids, trainer.rows.labels, strict=True)
    return trainer, trainer.data_collator([{"input_ids": ids, "labels": labels} for ids, labels in pairs])


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["one instruction", "an instruction each"])
@pytest.mark.parametrize("name", ["offensiveYN", "targetMinority"])
def test_the_loss_is_that_of_all_logits(tmp_path, name, dropout):
    """The trainer computes logits of answers only; here the model computes all, and its own loss."""
    trainer, batch = built(tmp_path, 12, name, lora_dropout=dropout)
    model = trainer.model.eval()  # without dropout, which would differ
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.05)
    rest = {key: tensor for key, tensor in batch.items() if key not in ("labels", "part_lengths")}
    logits, labels = model(**rest, use_cache=False).logits[:, :-1].float(), batch["labels"][:, 1:]
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    result = trainer.compute_loss(model, batch)
    assert result.item() == pytest.approx(plain.item(), abs=1e-6)
    parts = trainer.compute_loss(model, batch, num_items_in_batch=torch.tensor(1000))
    assert parts.item() == pytest.approx(plain.item() * int((labels != -100).sum()) / 1000, abs=1e-6)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for one, other in zip(torch.autograd.grad(result, trained), torch.autograd.grad(plain, trained), strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)


def expected(folder: Path, trainer, batch, **changes) -> tuple[Any, memory.Step]:
    """Return the fake model that corresponds to a trainer's, and the shape of its batch."""
    run = arguments(folder, **changes)
    config = memory.base_config(str(MODELS / "tiny_llama"), None)
    precision = changes.get("precision", "fp32")
    model = memory.fake_model(config, run, precision=precision)
    rows, tokens = batch["input_ids"].shape
    answers = int((batch["labels"] != IGNORED).sum())
    packed = "part_lengths" in batch
    posts = tuple(batch["part_lengths"][1:].tolist()) if packed else ()
    return model, memory.Step(rows, tokens, answers, packed=packed, posts=posts)


def allocated(step) -> int:
    """Return the peak of memory that PyTorch allocated during ``step``, according to its profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = profile.profiler.kineto_results.events()
    now = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def kept_bytes(model, forward) -> int:
    """Bytes that autograd keeps of a forward pass for the backward pass, without the weights."""
    weights = {storage._cdata for storage in step_memory.storages(model)}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # referenced, so that no other tensor gets its address
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(("precision", "dropout"), [("fp32", 0.0), ("bf16", 0.1)])
def test_fake_tensors_keep_for_the_backward_pass_what_real_ones_do(tmp_path, precision, dropout):
    changes = {"precision": precision, "lora_dropout": dropout}
    trainer, batch = built(tmp_path, 16, **changes)
    model, step = expected(tmp_path, trainer, batch, **changes)
    trainer.model.train()

    def forward():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            return trainer.compute_loss(trainer.model, batch)

    with step_memory.fake_mode(model):
        result = kept_bytes(model.train(), lambda: memory.step_loss(model, step, precision=precision))
    assert result == pytest.approx(kept_bytes(trainer.model, forward), rel=0.02)


@pytest.mark.parametrize(("precision", "checkpointing"), [("fp32", False), ("fp32", True), ("bf16", False)])
def test_the_memory_estimate_is_what_a_step_takes_from_the_allocator(tmp_path, precision, checkpointing):
    changes = {"precision": precision, "activation_checkpointing": checkpointing}
    trainer, batch = built(tmp_path, 48, **changes)
    model, step = expected(tmp_path, trainer, batch, **changes)
    result = memory.estimate_memory(model, step, precision=precision, checkpointing=checkpointing)
    trainer.model.train()
    if checkpointing:
        trainer.model.gradient_checkpointing_enable()

    def passes():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()

    passes()  # gradients lie there from now on
    assert result.activations == pytest.approx(allocated(passes), rel=0.1)


def test_the_estimate_before_loading_has_the_loaded_models_bytes(tmp_path):
    trainer, batch = built(tmp_path, 4)
    state = torch.get_rng_state()
    model, step = expected(tmp_path, trainer, batch)
    result = memory.estimate_memory(model, step, precision="fp32", checkpointing=True)
    assert result.model == step_memory.model_bytes(trainer.model)
    assert count_parameters(model) == count_parameters(trainer.model)
    trained = count_parameters(trainer.model)["trainable"]
    assert result.optimizer == 12 * trained
    few = memory.estimate_memory(model, step, precision="fp32", checkpointing=True, optim="paged_adamw_8bit")
    assert few.optimizer == 6 * trained
    assert torch.equal(torch.get_rng_state(), state), "an estimate must not change what the seed gives"


def test_the_memory_of_weights_is_counted_by_hand(fresh_model):
    packed = 4 * 4 * (4 * 128 * 128 + 3 * 128 * 320) / 8  # 4-bit weights of four layers
    plain = 4 * (2 * 900 * 128 + 9 * 128)  # embeddings, output layer, norms, in fp32
    trained = 4 * sum(p.numel() for p in fresh_model.parameters() if p.requires_grad)
    assert packed + plain + trained < step_memory.model_bytes(fresh_model) < 1.1 * (packed + plain + trained)


def test_llama_2_7b_is_estimated_within_what_is_known_of_it():
    """As trained on a T4; none of the 13 GB are loaded."""
    from transformers import LlamaConfig

    config = LlamaConfig(num_hidden_layers=2)  # otherwise transformers' default is Llama 2's 7B shape
    model = memory.fake_model(config, arguments(Path()), precision="fp16")
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    known = 2 * layer * (4 + 8 / 64 + 32 / 64 / 256) / 8 + 2 * (2 * 32000 * 4096 + 5 * 4096)
    known += 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert step_memory.model_bytes(model) == pytest.approx(known, rel=1e-4)
    result = memory.estimate_memory(model, memory.Step(1, 700, 64, packed=True), precision="fp16", checkpointing=True)
    assert result.line().startswith(f"estimated memory {result.total / 1e6:,.0f} MB (model ")


def test_memory_from_fewer_layers_is_that_of_all():
    from transformers import LlamaConfig

    def measure(config):
        model = memory.fake_model(config, arguments(Path()), precision="fp32")
        step = memory.Step(1, 200, 16, packed=True)
        needed = memory.estimate_memory(model, step, precision="fp32", checkpointing=True)
        return needed.model, needed.optimizer, needed.activations

    config = LlamaConfig(vocab_size=900, hidden_size=128, intermediate_size=320, num_hidden_layers=9)
    assert step_memory.by_depth(config, measure) == list(measure(config))
    assert config.num_hidden_layers == 9


@pytest.mark.parametrize("name", ["gemma3", "smollm3"])
def test_memory_from_fewer_layers_is_that_of_all_where_layers_differ(name):
    kind, sizes = BASES[name]
    kinds = {"layer_types": ["sliding_attention"] * 3 + ["full_attention"] + ["sliding_attention"] * 3}
    if name == "smollm3":
        kinds = {"no_rope_layers": [1, 1, 1, 0, 1, 1, 1], "layer_types": ["full_attention"] * 7}
    config = getattr(transformers, kind)(
        **sizes | kinds | {"num_hidden_layers": 7, "vocab_size": 900, "pad_token_id": 0}
    )

    def measure(config):
        model = memory.fake_model(config, arguments(Path()), precision="fp32")
        step = memory.Step(1, 200, 16, packed=True)
        return [memory.estimate_memory(model, step, precision="fp32", checkpointing=True).total]

    assert step_memory.by_depth(config, measure) == measure(config)


ONE_KIND = {"layer_types": ["full_attention"] * 7, "no_rope_layers": [1] * 7}
LAYERS = {
    "alike": ("llama", {}, True),
    "kinds listed": ("llama4", {}, False),
    "experts in some": ("llama4", {**ONE_KIND, "moe_layers": [5]}, False),
}


@pytest.mark.parametrize("layers", LAYERS)
def test_a_runs_memory_is_that_of_all_its_layers(tmp_path, monkeypatch, layers):
    name, changes, fewer = LAYERS[layers]
    kind, sizes = BASES[name]
    config = getattr(transformers, kind)(
        **sizes | {"num_hidden_layers": 7, "vocab_size": 900, "pad_token_id": 0} | changes
    )
    config.save_pretrained(tmp_path)
    encoded = SimpleNamespace(prefix_ids=[0] * 20)
    rows = SimpleNamespace(encoded=encoded, input_ids=[[0] * 30] * 16, answers=[[0] * 2] * 16)
    measured = []
    original = memory.estimate_memory

    def counting(model, *given, **more):
        measured.append(model.config.num_hidden_layers)
        return original(model, *given, **more)

    def estimate() -> tuple:
        measured.clear()
        return memory.estimate_run(arguments(tmp_path, model_name_or_path=str(tmp_path)), "fp32", rows, None)

    monkeypatch.setattr(memory, "estimate_memory", counting)
    result = estimate()
    assert (7 not in measured) == fewer
    monkeypatch.setattr(memory, "by_depth", lambda config, measure: measure(config))
    assert estimate() == result


def test_the_largest_step_has_the_most_tokens_of_one_pass():
    lengths, answers = [5, 9, 7, 30, 2, 2, 4], [2, 2, 3, 2, 2, 2, 2]
    shape = {"prefix": 10, "size": 3, "seed": 1}
    order = np.random.default_rng(1).permutation(7)
    steps = [[lengths[i] for i in order[start : start + 3]] for start in (0, 3, 6)]
    packed = memory.largest_step(lengths, answers, packed=True, **shape)
    assert (packed.rows, packed.tokens) == (1, 10 + max(map(sum, steps)))
    apart = memory.largest_step(lengths, answers, packed=False, **shape)
    assert apart.size == max(len(step) * (10 + max(step)) for step in steps)
    assert 6 <= packed.answers == apart.answers <= 7


def test_a_base_whose_memory_cannot_be_estimated_is_trained_all_the_same(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("a tensor's value is asked for")

    monkeypatch.setattr(memory, "fake_model", refuse)
    train(arguments(tmp_path, max_steps=1, evaluations=1), "offensiveYN")
    assert "memory cannot be estimated for this base model (RuntimeError)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["offensiveYN", "targetMinority"])
def test_the_validation_loss_is_the_mean_over_the_answers_tokens(tmp_path, name):
    trainer, _ = built(tmp_path, 8, name)
    known = trainer.validation
    with torch.no_grad():
        for parameter_name, parameter in trainer.model.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.05)
    total = 0.0
    for prompt, answer in zip(known.encoded.prompts, known.answers, strict=True):
        with torch.inference_mode():
            logits = trainer.model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total -= float(logits.log_softmax(-1)[range(len(answer)), answer].sum())
    assert len({len(answer) for answer in known.answers}) > 1
    result = trainer.evaluate()
    assert result["eval_loss"] == pytest.approx(total / sum(map(len, known.answers)), abs=1e-4)


def test_before_the_first_step_a_run_says_what_it_takes(tmp_path, capsys, small_miniature_for_module):
    train(arguments(tmp_path, max_steps=8, evaluations=1), "offensiveYN")
    output = capsys.readouterr().err
    assert re.search(r"151,552 of 1,136,768 parameters trained \(13\.33%\)", output)
    splits = load_splits(data_dir=small_miniature_for_module / "SBIC.v2")
    train_posts, dev_posts = (len(splits[name].posts) for name in ("train", "dev"))
    assert f"{train_posts:,} training posts (0 truncated to 384 tokens), {dev_posts} for validation" in output
    assert re.search(r"[\d,]+ tokens per epoch: 16 posts share a copy of the instruction \([\d,]+ with a copy", output)
    assert re.search(r"estimated memory \d+ MB", output)
    assert re.search(r"step 8 of 8, loss \d\.\d{4}, about 0 s left", output)
    assert re.search(r"step 6 of 8, loss \d\.\d{4}, about \d+ s left", output)


def test_the_memory_is_told_before_the_base_is_loaded(tmp_path, monkeypatch, capsys):
    def load(*_, **__):
        raise UserError("it would be loaded now")

    monkeypatch.setattr(training, "load_base", load)
    with pytest.raises(UserError, match="it would be loaded now"):
        train(arguments(tmp_path), "offensiveYN")
    assert re.search(r"estimated memory \d+ MB \(model \d+, optimizer 2, activations \d+\)", capsys.readouterr().err)


# ---- what is saved


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(arguments(folder, max_steps=12, evaluations=3), "offensiveYN")
    return folder / "offensiveYN"


def test_the_saved_adapter_is_the_best_one_and_scores_the_same_anywhere(trained, small_miniature_for_module):
    model, tokenizer, description = adapters.load_adapter(trained, precision="fp32")
    feature = description.resolve_feature()
    assert feature == FEATURES["offensiveYN"]
    posts = [
        p
        for p in load_splits(data_dir=small_miniature_for_module / "SBIC.v2")["dev"].posts
        if feature.label_of(p) is not None
    ]
    encoded = encode(tokenizer, feature, [p.text for p in posts], max_post_tokens=description.max_post_tokens)
    result = score_labels(model, tokenizer, feature, encoded, batch_size=50).argmax(1)
    labels = np.array([feature.label_of(p) for p in posts])
    balanced = np.mean([(result[labels == label] == label).mean() for label in range(3)])
    written = json.loads((trained / "training.json").read_text())
    assert balanced == pytest.approx(written["best"]["validation_balanced_accuracy"], abs=1e-9)
    assert balanced == max(entry.get("eval_balanced_accuracy", 0) for entry in written["log"])


def test_the_folder_holds_what_publishing_needs_and_nothing_of_the_libraries(trained):
    names = {path.name for path in trained.iterdir() if path.is_file()}
    assert names == {
        "adapter_model.safetensors", "adapter_config.json", "annotator.json", "run.json", "tokenizer.json", "tokenizer_config.json",
        "training.json", "trained_texts.txt",
    }  # fmt: skip
    config = json.loads((trained / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "miniature/tiny_llama", "no path of this machine"
    written = json.loads((trained / "training.json").read_text())
    assert written["storage_bytes"] == sum(
        (trained / name).stat().st_size for name in ("adapter_model.safetensors", "adapter_config.json")
    )
    assert {tensor.dtype for tensor in weights(trained).values()} == {torch.float32}
    assert not any("embed" in name or "lm_head" in name for name in weights(trained))
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in trained.iterdir() if path.is_file()} == {0o666 & ~umask}


def test_the_adapter_sits_on_every_linear_layer(trained):
    layers = {name.split(".lora_")[0].removeprefix("base_model.model.model.") for name in weights(trained)}
    parts = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert layers == {f"layers.{layer}.{part}" for layer in range(4) for part in parts}


def test_target_modules_may_be_chosen_in_a_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: {tmp_path}\nlearning_rate: 2e-3\nmax_steps: 1\nevaluations: 1\n"
                      "target_modules: [q_proj, v_proj]\n")  # fmt: skip
    train(parse(TrainArguments, ["--config", str(recipe)]), "offensiveYN")
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in weights(tmp_path / "offensiveYN")}
    assert layers == {"q_proj", "v_proj"}
    assert json.loads((tmp_path / "offensiveYN" / "run.json").read_text())["target_modules"] == ["q_proj", "v_proj"]


def test_a_save_that_changes_the_answers_is_caught(tmp_path, fresh_model, tokenizer, monkeypatch):
    declared = FEATURES["hasBiasedImplication"]
    description = annotator_file.describe(arguments(tmp_path), declared, None)
    keywords = {"feature": declared, "probe": ["the florbs are lazy", "the tram was full"]}
    (tmp_path / "whole").mkdir()
    assert adapters.save(fresh_model, tokenizer, description, tmp_path / "whole", **keywords) > 0
    whole = fresh_model.save_pretrained

    def changed(folder: Path, **more) -> None:
        whole(folder, **more)
        tensors = load_file(folder / "adapter_model.safetensors")
        first = next(iter(sorted(name for name in tensors if "lora_B" in name)))
        tensors[first] = tensors[first] * 1.01
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(fresh_model, "save_pretrained", changed)
    (tmp_path / "changed").mkdir()
    with pytest.raises(RuntimeError, match="answers differently from the trained one"):
        adapters.save(fresh_model, tokenizer, description, tmp_path / "changed", **keywords)


def test_the_best_checkpoint_is_kept_and_patience_ends_the_run(tmp_path, monkeypatch):
    scripted = iter([0.5, 0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(
        training.FeatureTrainer, "_validate", lambda _: {"loss": 1.0, "balanced_accuracy": next(scripted)}
    )
    train(arguments(tmp_path, max_steps=10, evaluations=5, early_stopping_patience=2), "offensiveYN")
    written = facts(tmp_path)
    assert written["best"] == {"validation_balanced_accuracy": 0.9, "step": 4}
    assert max(entry["step"] for entry in written["log"]) == 8
    folder = tmp_path / "offensiveYN"
    assert same(folder, folder / "checkpoint-4")
    assert not same(folder, folder / "checkpoint-8")


def test_a_text_features_best_checkpoint_has_the_least_loss(tmp_path):
    train(arguments(tmp_path, max_steps=6, evaluations=3), "targetMinority")
    written = facts(tmp_path, "targetMinority")
    assert written["best"]["validation_loss"] == min(e["eval_loss"] for e in written["log"] if "eval_loss" in e)


def test_the_bases_commit_is_kept_with_the_adapter(tmp_path, hub):
    """When the base's main branch moves, the adapter stays on the commit it was trained on."""
    from huggingface_hub import HfApi
    from transformers import AutoModelForCausalLM

    HfApi().create_repo("miniature/base")
    HfApi().upload_folder(repo_id="miniature/base", folder_path=MODELS / "tiny_llama")
    commit = HfApi().model_info("miniature/base").sha
    run = {"max_steps": 2, "evaluations": 1, "model_name_or_path": "miniature/base"}
    train(arguments(tmp_path / "run", **run), "offensiveYN")
    folder = tmp_path / "run" / "offensiveYN"
    moved = AutoModelForCausalLM.from_pretrained(MODELS / "tiny_llama")
    with torch.no_grad():
        moved.lm_head.weight.mul_(2)
    moved.save_pretrained(tmp_path / "moved")
    HfApi().upload_folder(repo_id="miniature/base", folder_path=tmp_path / "moved")
    assert HfApi().model_info("miniature/base").sha != commit
    model, _, description = adapters.load_adapter(folder, precision="fp32")
    assert (description.base_model, description.base_revision) == ("miniature/base", commit)
    assert json.loads((folder / "adapter_config.json").read_text())["revision"] == commit
    there = model.get_output_embeddings().weight
    assert torch.equal(there, load_base(str(MODELS / "tiny_llama"), None, precision="fp32").lm_head.weight)


def test_an_adapter_is_loaded_from_the_hub(trained, hub):
    from huggingface_hub import HfApi

    HfApi().create_repo("miniature/adapter")
    patterns = ["adapter_*", "annotator.json"]
    HfApi().upload_folder(repo_id="miniature/adapter", folder_path=trained, allow_patterns=patterns)
    here, there = (adapters.load_adapter(name, precision="fp32")[0] for name in (trained, "miniature/adapter"))
    first, second = (dict(model.named_parameters()) for model in (here, there))
    assert all(torch.equal(first[name], second[name]) for name in first if "lora" in name)


# ---- stop, resume, refuse


def start(folder: Path, *more: str) -> Forked:
    command = [
        "-m", "sbic_llama.train_offensive_yn", "--output_dir", str(folder), "--learning_rate", "2e-3",
        "--max_steps", "16", "--evaluations", "4", "--logging_steps", "1", *more,
    ]  # fmt: skip
    return Forked(command)


@pytest.mark.slow
@pytest.mark.parametrize(("dropout", "number"), [("0", signal.SIGTERM), ("0.1", signal.SIGINT)])
def test_a_stopped_run_continues_to_the_same_weights(tmp_path, dropout, number):
    """A validation lies in between, which would repack 4-bit weights unless that is disabled."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = start(whole, "--lora_dropout", dropout)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    process = start(stopped, "--lora_dropout", dropout)
    until(process, "step 6 of 16, loss")
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + number, output[-3000:]
    assert "the same command continues from the last checkpoint" in output
    folder = stopped / "offensiveYN"
    assert not (folder / "training.json").exists()
    assert not (folder / "adapter_model.safetensors").exists()
    process = start(stopped, "--lora_dropout", dropout)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    assert "continuing from checkpoint-" in output
    assert same(whole / "offensiveYN", folder)


def test_a_continued_run_remembers_the_patience_that_was_spent(tmp_path, monkeypatch):
    scripted = iter([0.9, 0.8, 0.7, 0.6, 0.5])

    def validate(_) -> dict[str, float]:
        value = next(scripted)
        if value == 0.8:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": 1.0, "balanced_accuracy": value}

    monkeypatch.setattr(training.FeatureTrainer, "_validate", validate)
    run = arguments(tmp_path, max_steps=10, evaluations=5, early_stopping_patience=2)
    with pytest.raises(Interrupted):
        train(run, "offensiveYN")
    train(run, "offensiveYN")
    assert facts(tmp_path)["continued"]
    assert max(entry["step"] for entry in facts(tmp_path)["log"]) == 6


def test_a_finished_run_is_left_alone_and_another_is_refused(trained, monkeypatch):
    before = (trained / "training.json").stat().st_mtime_ns
    monkeypatch.setattr(training, "FeatureTrainer", None)  # nothing may be trained any more
    time.sleep(0.01)
    train(arguments(trained.parent, max_steps=12, evaluations=3), "offensiveYN")
    assert (trained / "training.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"holds another run: label_policy was 'levels' and is 'above_half'"):
        train(arguments(trained.parent, max_steps=12, evaluations=3, label_policy="above_half"), "offensiveYN")


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"model_name_or_path": "./nothing"}, "offensiveYN", "nothing: neither a folder nor a Hub id"),
        (
            {"optim": "paged_adamw_32bit"},
            "offensiveYN",
            "paged_adamw_32bit requires an NVIDIA GPU; expected adamw_torch",
        ),
        ({"label_policy": "above_half"}, "targetMinority", "targetMinority has a single label policy"),
        ({"wording": "study"}, "offensiveYN", "the study has no wording for offensiveYN"),
        ({"precision": "fp16"}, "offensiveYN", "fp16 is not supported here"),
        ({"data_dir": Path("nothing")}, "offensiveYN", "nothing: no such folder"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, changes, name, message):
    with pytest.raises(UserError, match=message):
        train(arguments(tmp_path / "run", **changes), name)
    train(arguments(tmp_path / "run", max_steps=1, evaluations=1), "offensiveYN")  # and nothing stands in the way


def test_the_same_arguments_on_other_posts_are_another_run(trained, tmp_path, monkeypatch):
    """Validation posts are part of a run's identity, because they choose its checkpoint."""
    whole = training.labeled

    def fewer(split, label_of):
        return whole(split, label_of)[: -1 if split.name == "dev" else None]

    monkeypatch.setattr(training, "labeled", fewer)
    with pytest.raises(UserError, match=r"holds another run: data changed"):
        train(arguments(trained.parent, max_steps=12, evaluations=3), "offensiveYN")


def test_posts_beyond_the_models_context_are_refused(tmp_path, miniature):
    import csv

    shutil.copytree(miniature / "SBIC.v2", tmp_path / "corpus")
    path = tmp_path / "corpus" / "SBIC.v2.trn.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["post"] = "florbs " * 3000
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    run = {"data_dir": tmp_path / "corpus", "max_post_tokens": 2000}
    with pytest.raises(UserError, match=r"exceeds the model's context of 1024; expected at most 9\d\d"):
        train(arguments(tmp_path / "run", **run), "offensiveYN")


def test_something_else_than_an_adapter_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"missing annotator\.json; expected a model trained by this project"):
        adapters.load_adapter(tmp_path, precision="fp32")
    with pytest.raises(UserError, match="no such folder"):
        adapters.load_adapter(tmp_path / "nothing", precision="fp32")


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(min(tensors))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def configured(**changes):
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_tensor, "its tensors do not match its configuration .*lora_A"),
        (configured(r=8), r"cannot be loaded: .*size mismatch.*Use it with the base model that it was trained on"),
        (configured(peft_type="FOO"), r"an adapter of type 'FOO'; expected a LoRA adapter"),
        (configured(base_model_name_or_path="other/base"), r"expected \('miniature/tiny_llama', None\)"),
        (
            lambda folder: (folder / "adapter_config.json").write_text("[]"),
            r"adapter_config\.json: damaged file: not a JSON object; expected a JSON object",
        ),
        (
            lambda folder: (folder / "adapter_model.safetensors").unlink(),
            r"no weights in safetensors format; expected adapter_model\.safetensors",
        ),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x" * 100),
            "weights are damaged or truncated",
        ),
    ],
)
def test_a_spoilt_adapter_is_refused_and_not_scored_as_its_base(trained, tmp_path, spoil, message):
    folder = shutil.copytree(trained, tmp_path / "adapter", ignore=shutil.ignore_patterns("checkpoint-*"))
    spoil(folder)
    with pytest.raises(UserError, match=message):
        adapters.load_adapter(folder, precision="fp32")


def test_an_encoder_is_refused_as_base(tmp_path):
    with pytest.raises(UserError, match="not a causal language model; expected a model such as Llama 2"):
        train(arguments(tmp_path, model_name_or_path=str(MODELS / "tiny_roberta")), "offensiveYN")


def test_bf16_on_a_cpu_that_has_it(tmp_path):
    from common.runtime.hardware import cpu_has_bf16

    if not cpu_has_bf16():
        pytest.skip("this CPU has no bf16")
    train(arguments(tmp_path, precision="bf16"), "offensiveYN")  # its gate compares with the adapter loaded again
    assert facts(tmp_path)["precision"] == "bf16"
    assert {t.dtype for t in weights(tmp_path / "offensiveYN").values()} == {torch.float32}
