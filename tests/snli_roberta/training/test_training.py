"""The training function on the miniature's tiny model: gradients, reload, sampling, stop and resume, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.miniature.pretrain import MODELS
from common.models import encoder
from common.training import classification
from common.training.callbacks import Diverged, Interrupted
from common.training.run import RunContext
from snli_roberta.data.corpus import LABELS, Pair, balanced, load_split, stratified
from snli_roberta.study.runs import StudyArguments
from snli_roberta.training.arguments import TrainArguments
from snli_roberta.training.run import load_data, train
from tests import forked
from tests.forked import Forked, until

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("small_miniature_for_module")
RECIPES = ROOT / "snli_roberta" / "recipes"
load_base = partial(encoder.load_base, labels=LABELS)
load_trained = partial(encoder.load_trained, labels=LABELS)


def arguments(folder: Path, method: str = "full", **changes) -> TrainArguments:
    rate = {"full": 3e-4, "lora": 1e-3}[method]
    base = {"learning_rate": rate, "max_steps": 6, "logging_steps": 1, "evaluations": 2, "train_fraction": 0.1}
    return TrainArguments(output_dir=folder, method=method, **{**base, **changes})


def facts(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text())


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(entry["loss"], entry["grad_norm"]) for entry in facts(folder)["log"] if "grad_norm" in entry]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


# ---- arms


def recipe(name: str) -> dict:
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text())


@pytest.mark.parametrize("form", ["{}", "miniature_{}", "{}_a100", "large_{}", "large_{}_a100"])
def test_the_arms_differ_in_method_rate_and_name_only(form):
    full, lora = recipe(form.format("full")), recipe(form.format("lora"))
    differing = {key for key in full.keys() | lora.keys() if full.get(key) != lora.get(key)}
    assert differing == {"method", "learning_rate", "output_dir"}
    assert float(lora["learning_rate"]) > 2 * float(full["learning_rate"])


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_parses_and_names_its_command(path):
    if "study" in path.stem:
        parse(StudyArguments, ["--config", str(path)])
        command = "snli_roberta.compare"
    else:
        command = f"snli_roberta.train_{parse(TrainArguments, ['--config', str(path)]).method}"
    assert f"{command} --config snli_roberta/recipes/{path.name}" in path.read_text().split("\noutput_dir:")[0]


def test_a_recipe_of_the_other_method_is_refused():
    result = forked.run(["-m", "snli_roberta.train_full", "--config", RECIPES / "miniature_lora.yaml"])
    assert (result.returncode, result.stderr) == (2, "error: key 'method': the recipe is for lora; expected full\n")


def test_batches_are_those_of_a_dataset_of_lists(tmp_path):
    """Half a million pairs as lists would take gigabytes; Trainer groups and pads their flat arrays alike."""
    settings = arguments(tmp_path, max_length=22)
    trainer, truncated = classification.build_trainer(settings, RunContext(1, "fp32"), load_data(settings))
    assert 0 < truncated < len(trainer.train_dataset)
    flat = [trainer.get_train_dataloader(), trainer.get_eval_dataloader()]
    splits = (trainer.train_dataset, trainer.eval_dataset)
    trainer.train_dataset, trainer.eval_dataset = (Dataset.from_list(list(split)) for split in splits)
    for loader, expected in zip(flat, [trainer.get_train_dataloader(), trainer.get_eval_dataloader()], strict=True):
        both = []
        for batches in (loader, expected):
            torch.manual_seed(0)
            both.append([{name: values.tolist() for name, values in sorted(batch.items())} for batch in batches])
        assert both[0] == both[1]


# ---- sampling


def pairs(*counts: int) -> list[Pair]:
    return [Pair(f"p{i}", f"h{i}", label) for label, count in enumerate(counts) for i in range(count)]


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [
        ((100, 60, 40), 0.5, (50, 30, 20)),
        ((5, 5, 5), 0.5, (3, 3, 2)),  # 7.5 rows round to 8
        ((7, 2, 1), 0.5, (4, 1, 0)),  # shares 3.5, 1 and 0.5: one row is left for two equal remainders
        ((10, 7, 3), 0.25, (2, 2, 1)),  # shares 2.5, 1.75 and 0.75: the largest remainders get the two rows left
        ((183416, 182764, 183187), 0.5, (91708, 91382, 91594)),  # the real train split; 183,187 is odd
        ((9, 9, 9), 1.0, (9, 9, 9)),
    ],
)
def test_a_sample_keeps_the_proportions_to_the_row(counts, fraction, expected):
    drawn = stratified(pairs(*counts), fraction, seed=1)
    counts = Counter(pair.label for pair in drawn)
    assert tuple(counts[label] for label in range(3)) == expected


def test_samples_are_drawn_by_seed_and_keep_the_order():
    items = pairs(50, 30, 20)
    one, same, other = (stratified(items, 0.3, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert one == sorted(one, key=items.index)
    assert len(set(one)) == len(one)
    assert Counter(pair.label for pair in balanced(items, 0)) == {0: 20, 1: 20, 2: 20}


# ---- the loss


@pytest.mark.parametrize("method", ["full", "lora"])
def test_accumulation_changes_neither_loss_nor_gradient(tmp_path, method):
    shape = {"per_device_train_batch_size": 16}, {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    for number, sizes in enumerate(shape):
        train(arguments(tmp_path / str(number), method, max_steps=3, **sizes))
    one, four = losses(tmp_path / "0"), losses(tmp_path / "1")
    assert len(one) == 3
    np.testing.assert_allclose(four, one, rtol=2e-3)
    evaluations = [[e["eval_loss"] for e in facts(tmp_path / name)["log"] if "eval_loss" in e] for name in "01"]
    np.testing.assert_allclose(*evaluations, rtol=1e-3)


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
def test_two_processes_change_neither_loss_nor_gradient(tmp_path):
    train(arguments(tmp_path / "one", max_steps=3, per_device_train_batch_size=16))
    command = [
        "--config_file", "accelerate_config.yaml", "--num_processes", "2", "-m",
        "snli_roberta.train_full", "--method", "full", "--output_dir", tmp_path / "two", "--learning_rate", "3e-4",
        "--max_steps", "3", "--logging_steps", "1", "--evaluations", "2", "--train_fraction", "0.1",
        "--per_device_train_batch_size", "8",
    ]  # fmt: skip
    result = forked.launch(command, ACCELERATE_USE_CPU="true")
    assert result.returncode == 0, result.stderr[-3000:]
    assert facts(tmp_path / "two")["processes"] == 2
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-3)


# ---- the adapter and the saved model


def test_lora_sits_on_every_linear_layer_of_the_encoder_and_on_nothing_else():
    model, new = load_base(str(MODELS / "tiny_roberta"))
    adapted = encoder.add_lora(model, new, arguments(Path(), "lora", r=4, lora_alpha=8))
    on = {
        name.removeprefix("base_model.model.") for name, module in adapted.named_modules() if hasattr(module, "lora_A")
    }
    linear = {
        f"roberta.encoder.layer.{layer}.{part}"
        for layer in range(3)
        for part in (
            "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
            "intermediate.dense", "output.dense",
        )
    }  # fmt: skip
    assert on == linear
    trained = {
        name for name, parameter in adapted.named_parameters() if parameter.requires_grad and "lora_" not in name
    }
    assert trained
    assert all("classifier.modules_to_save" in name for name in trained)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"use_rslora": True, "r": 8},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "gaussian", "target_modules": ("query", "value")},
    ],
    ids=str,
)
def test_what_an_adapter_is_comes_from_the_recipe_and_is_loaded_again(tmp_path, changes):
    """Some initializations change the base's weights; the check after training compares with the reloaded adapter."""
    train(arguments(tmp_path / "run", "lora", max_steps=2, evaluations=1, **changes))
    saved = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    for key, value in changes.items():
        if key != "target_modules":
            assert saved[key] == value
    from safetensors import safe_open

    with safe_open(tmp_path / "run" / "adapter_model.safetensors", "pt") as file:
        keys = list(file.keys())
    on = {key.split(".lora_A")[0].rpartition(".")[2] for key in keys if ".lora_A" in key}
    assert on == set(changes.get("target_modules", ("query", "key", "value", "dense")))


def test_a_layer_that_the_encoder_lacks_is_refused_by_name(tmp_path):
    with pytest.raises(UserError) as error:
        train(arguments(tmp_path / "run", "lora", target_modules=("qery",)))
    assert "no linear layer of the encoder is named 'qery'; expected dense, key, query, value" in str(error.value)


def test_a_pooler_that_the_checkpoint_lacks_is_saved_with_the_adapter(tmp_path):
    """BERT's classifier has a pooler, and a checkpoint of the masked language model has none."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=600, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertForMaskedLM(config).save_pretrained(tmp_path)
    model, new = load_base(str(tmp_path))
    assert new == ["classifier", "pooler"]
    adapted = encoder.add_lora(model, new, arguments(Path(), "lora", r=4, lora_alpha=8))
    saved = set()
    adapted.save_pretrained(tmp_path / "adapter")
    from safetensors import safe_open

    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as file:
        saved = set(file.keys())
    assert any("pooler.dense.weight" in key for key in saved)
    assert any(key.endswith("classifier.weight") for key in saved)
    assert not any("pooler" in key and "lora" in key for key in saved)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_saved_model_is_the_best_one_and_loads_to_the_same_logits(tmp_path, method, small_miniature_for_module):
    train(arguments(tmp_path / "run", method, max_steps=12, evaluations=3))
    dev = load_split("dev", data_dir=small_miniature_for_module / "snli_1.0")
    texts = [pair.texts for pair in dev.pairs]
    model, tokenizer = load_trained(tmp_path / "run")
    logits = encoder.predict_logits(model, tokenizer, texts)
    accuracy = float((logits.argmax(-1) == np.array(dev.labels)).mean())
    written = facts(tmp_path / "run")
    assert accuracy == pytest.approx(written["best"]["validation_accuracy"])
    assert accuracy == max(entry["eval_accuracy"] for entry in written["log"] if "eval_accuracy" in entry)
    stored = {
        "full": {"model.safetensors", "config.json"},
        "lora": {"adapter_model.safetensors", "adapter_config.json", "config.json"},
    }[method]
    assert written["storage_bytes"] == sum((tmp_path / "run" / name).stat().st_size for name in stored)
    assert (written["parameters"]["trainable"] == written["parameters"]["total"]) == (method == "full")
    # In another batch, order and company a pair's logits are the same but for rounding.
    np.testing.assert_allclose(
        encoder.predict_logits(model, tokenizer, texts[:7][::-1], batch_size=2)[::-1], logits[:7], atol=1e-4
    )


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_best_checkpoint_is_kept_and_patience_ends_the_run(tmp_path, method, monkeypatch):
    scripted = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    monkeypatch.setattr(classification, "validation_scores", lambda scored, metric: {metric: next(scripted)})
    train(arguments(tmp_path, method, max_steps=14, evaluations=7, early_stopping_patience=3))
    written = facts(tmp_path)
    assert written["best"] == {"validation_accuracy": 0.9, "step": 4}
    assert max(entry["step"] for entry in written["log"]) == 10, "three validations without a better one: 6, 8, 10"
    kept, saved = weights(tmp_path / "checkpoint-4"), weights(tmp_path)
    last = weights(tmp_path / "checkpoint-10")
    assert kept.keys() == saved.keys()
    assert all(torch.equal(kept[name], saved[name]) for name in kept)
    assert not all(torch.equal(last[name], saved[name]) for name in last)


def test_a_continued_run_remembers_the_patience_that_was_spent(tmp_path, monkeypatch):
    scripted = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])

    def accuracy(_, metric: str) -> dict[str, float]:
        value = next(scripted)
        if value == 0.7:
            os.kill(os.getpid(), signal.SIGTERM)  # at step 6, with two of three validations spent
        return {metric: value}

    monkeypatch.setattr(classification, "validation_scores", accuracy)
    run = arguments(tmp_path, max_steps=14, evaluations=7, early_stopping_patience=3)
    with pytest.raises(Interrupted) as stop:
        train(run)
    assert stop.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "training.json").exists()
    train(run)
    assert facts(tmp_path)["continued"]
    assert max(entry["step"] for entry in facts(tmp_path)["log"]) == 8


def test_the_bases_revision_is_kept_with_the_adapter(tmp_path, hub):
    """If the base's main branch moves, the adapter still uses the revision it was trained on."""
    from huggingface_hub import HfApi

    HfApi().create_repo("miniature/base")
    HfApi().upload_folder(repo_id="miniature/base", folder_path=MODELS / "tiny_roberta")
    HfApi().create_tag("miniature/base", tag="v1")
    from transformers import AutoModelForMaskedLM

    moved = AutoModelForMaskedLM.from_pretrained(MODELS / "tiny_roberta")
    with torch.no_grad():
        moved.roberta.embeddings.word_embeddings.weight.mul_(2)
    moved.save_pretrained(tmp_path / "moved")
    HfApi().upload_folder(repo_id="miniature/base", folder_path=tmp_path / "moved")
    run = {"max_steps": 2, "evaluations": 1, "model_name_or_path": "miniature/base", "model_revision": "v1"}
    train(arguments(tmp_path / "run", "lora", **run))  # its gate compares with the adapter loaded again
    commit = HfApi().model_info("miniature/base", revision="v1").sha
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("miniature/base", commit)


def test_a_base_with_a_head_of_other_classes_gets_a_new_one(tmp_path):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(MODELS / "tiny_roberta", num_labels=2).save_pretrained(tmp_path)
    model, new = load_base(str(tmp_path))
    assert (model.config.num_labels, model.classifier.out_proj.out_features, new) == (3, 3, ["classifier"])


@pytest.mark.parametrize("load", [load_base, load_trained])
def test_a_broken_download_is_the_users_error(tmp_path, load):
    shutil.copytree(MODELS / "tiny_roberta", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"id2label": dict(enumerate(LABELS))}))
    file = tmp_path / "m" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="weights are damaged or truncated"):
        load(str(tmp_path / "m"))


def test_too_few_training_pairs_are_refused(tmp_path):
    with pytest.raises(UserError, match="no training pair of entailment, neutral, contradiction"):
        train(arguments(tmp_path, train_fraction=1e-6))


def test_a_first_try_that_failed_does_not_block_its_folder(tmp_path):
    with pytest.raises(UserError, match="neither a folder nor a Hub id"):
        train(arguments(tmp_path / "run", model_name_or_path=f"{tmp_path}/typo", max_steps=1))
    train(arguments(tmp_path / "run", max_steps=1, evaluations=1))
    assert (tmp_path / "run" / "training.json").is_file()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_save_that_loses_the_head_is_caught(tmp_path, method, monkeypatch):
    from safetensors.torch import load_file, save_file

    model, new = load_base(str(MODELS / "tiny_roberta"))
    if method == "lora":
        model = encoder.add_lora(model, new, arguments(Path(), "lora", r=4, lora_alpha=8))
    whole = model.save_pretrained

    def without_head(folder: Path, **_: bool) -> None:
        whole(folder)
        (path,) = folder.glob("*.safetensors")
        save_file({k: v for k, v in load_file(path).items() if "classifier" not in k}, path, metadata={"format": "pt"})

    tokenizer = encoder.load_tokenizer(str(MODELS / "tiny_roberta"))
    probe = [("A dog is wet.", "A pet is dry.")]
    assert encoder.save(model, tokenizer, tmp_path / "whole", base="miniature/tiny_roberta", probe=probe) > 0
    monkeypatch.setattr(model, "save_pretrained", without_head)
    with pytest.raises(UserError, match=r"4 tensors missing \(first: 'classifier|missing '.*classifier"):
        encoder.save(model, tokenizer, tmp_path / "headless", base="miniature/tiny_roberta", probe=probe)


def test_half_precision_training_saves_what_answers_the_same(tmp_path, monkeypatch):
    from common.runtime.hardware import cpu_has_bf16

    if not cpu_has_bf16():
        pytest.skip("this CPU has no bf16")
    compared = []
    save = encoder.save
    monkeypatch.setattr(encoder, "save", lambda *given, **named: compared.append(save(*given, **named)) or compared[-1])
    train(arguments(tmp_path / "run", "full", precision="bf16", max_steps=2))
    assert facts(tmp_path / "run")["precision"] == "bf16"
    assert compared == [facts(tmp_path / "run")["storage_bytes"]], "the run was not gated by loading what it saved"


# ---- stop, resume, refuse


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*model.safetensors")))


def start(folder: Path, method: str, *more: str) -> Forked:
    command = [
        "-m", f"snli_roberta.train_{method}", "--method", method, "--output_dir", str(folder),
        "--learning_rate", "1e-3", "--max_steps", "24", "--evaluations", "4", "--train_fraction", "0.2", "--logging_steps", "1",
        "--lora_dropout", "0.1", *more,
    ]  # fmt: skip
    return Forked(command)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "number"), [("full", signal.SIGTERM), ("lora", signal.SIGINT)])
def test_a_stopped_run_continues_to_the_same_weights(tmp_path, method, number):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    process = start(whole, method)
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    process = start(stopped, method)
    until(process, ", loss ")
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + number
    assert "the same command continues from the last checkpoint" in output
    assert not (stopped / "training.json").exists()
    assert not list(stopped.glob("*model.safetensors"))
    (checkpoint,) = stopped.glob("checkpoint-*")
    assert int(checkpoint.name.split("-")[1]) < 24
    process = start(stopped, method)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    assert f"continuing from {checkpoint.name}" in output
    one, other = weights(whole), weights(stopped)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_that_diverges_ends_and_what_was_before_stays(tmp_path, monkeypatch):
    train(arguments(tmp_path / "whole", evaluations=3))
    lossy, step = classification.Trainer.compute_loss, iter(range(1, 100))

    def diverging(*given, **named):
        loss = lossy(*given, **named)
        return loss * float("nan") if named.get("return_outputs") is not True and next(step) == 5 else loss

    monkeypatch.setattr(classification.Trainer, "compute_loss", diverging)
    with pytest.raises(Diverged, match=r"run: the loss is nan at step 5; expected a learning rate below 0\.0003"):
        train(arguments(tmp_path / "run", evaluations=3))
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    monkeypatch.undo()
    train(arguments(tmp_path / "run", evaluations=3))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_checkpoint_holds_non_finite_weights(tmp_path, monkeypatch):
    """For example if a stop comes between the step that broke them and the next loss."""
    stepped = classification.Trainer.training_step

    def spoiling(trainer, model, *given):
        loss = stepped(trainer, model, *given)
        if trainer.state.global_step == 3:
            model.classifier.out_proj.bias.data[0] = float("inf")
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    monkeypatch.setattr(classification.Trainer, "training_step", spoiling)
    with pytest.raises(Diverged, match=r"non-finite weights \(first in classifier\.out_proj\.bias\) at step 4"):
        train(arguments(tmp_path / "run", evaluations=3))
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]


def test_an_output_folder_that_cannot_be_written_to_is_refused_before_the_training(monkeypatch):
    monkeypatch.setattr(classification, "Trainer", None)
    with pytest.raises(UserError, match=r"/sys/run/run\.json: can't be written: "):
        train(arguments(Path("/sys/run")))


def test_a_run_whose_folder_was_moved_keeps_its_best_checkpoint(tmp_path, monkeypatch):
    scripted = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr(classification, "validation_scores", lambda scored, metric: {metric: next(scripted)})
    train(arguments(tmp_path / "run", evaluations=3))
    best = weights(tmp_path / "run")
    (tmp_path / "run" / "training.json").unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "moved" / "model.safetensors").unlink()
    train(arguments(tmp_path / "moved", evaluations=3))
    assert facts(tmp_path / "moved")["best"] == {"validation_accuracy": 0.9, "step": 2}
    again = weights(tmp_path / "moved")
    assert all(torch.equal(best[name], again[name]) for name in best)


def test_a_run_that_lost_its_patience_and_was_killed_trains_no_further(tmp_path, monkeypatch):
    """Its last checkpoint is not from the last step."""
    scripted = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr(classification, "validation_scores", lambda scored, metric: {metric: next(scripted)})
    run = {"max_steps": 10, "evaluations": 5, "early_stopping_patience": 2}
    train(arguments(tmp_path / "run", **run))
    best = weights(tmp_path / "run")
    assert best
    (tmp_path / "run" / "training.json").unlink()
    train(arguments(tmp_path / "run", **run))  # a further validation would find the script at its end
    assert facts(tmp_path / "run")["best"] == {"validation_accuracy": 0.9, "step": 2}
    again = weights(tmp_path / "run")
    assert all(torch.equal(best[name], again[name]) for name in best)


def test_a_run_that_has_begun_goes_on_in_its_own_precision_only(tmp_path, monkeypatch):
    run = {"max_steps": 4, "evaluations": 2}
    train(arguments(tmp_path / "run", **run))
    fp32 = classification.hardware.choose_precision
    # As on another machine, where auto means something else.
    monkeypatch.setattr(
        classification.hardware,
        "choose_precision",
        lambda asked, **more: fp32("bf16" if asked == "auto" else asked, **more),
    )
    monkeypatch.setattr(classification.hardware, "cpu_has_bf16", lambda: True)
    train(arguments(tmp_path / "run", **run))  # it has ended: nothing is computed any more
    (tmp_path / "run" / "training.json").unlink()
    with pytest.raises(UserError, match="holds another run: precision was 'fp32' and is 'bf16'"):
        train(arguments(tmp_path / "run", **run))
    train(arguments(tmp_path / "run", **run, precision="fp32"))
    assert facts(tmp_path / "run")["precision"] == "fp32"


def test_a_finished_run_is_left_alone_and_another_is_refused(tmp_path, monkeypatch):
    run = arguments(tmp_path / "run", max_steps=2)
    train(run)
    before = (tmp_path / "run" / "training.json").stat().st_mtime_ns
    monkeypatch.setattr(classification, "Trainer", None)  # nothing may be trained any more
    time.sleep(0.01)
    train(run)
    assert (tmp_path / "run" / "training.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"holds another run: learning_rate was 0.0003 and is 0.5"):
        train(arguments(tmp_path / "run", max_steps=2, learning_rate=0.5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UserError, match="not empty and holds no run"):
        train(arguments(tmp_path / "other"))


def test_a_tracker_gets_the_losses_only_where_it_is_asked_for(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain, tracked = arguments(tmp_path / "plain"), arguments(tmp_path / "tracked", report_to="tensorboard")
    train(plain)
    train(tracked)
    assert not list((tmp_path / "plain").rglob("events.*"))
    (events,) = (tmp_path / "tracked").rglob("events.*")
    seen = EventAccumulator(str(events)).Reload()
    logged = [event.value for event in seen.Scalars("train/loss")]
    assert logged == pytest.approx([loss for loss, _ in losses(tmp_path / "tracked")])
    assert len(seen.Scalars("eval/accuracy")) == 2
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "tracked")]
    assert weights[0] == weights[1]
    train(arguments(tmp_path / "tracked"))
    assert "finished already" in capsys.readouterr().err, "who is told does not make it another run"


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"key 'report_to': trackio is not installed. Run pip install trackio"):
        arguments(tmp_path, report_to="trackio")


def test_bad_arguments_are_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(UserError, match="two corpora were given"):
        arguments(tmp_path, data_dir=tmp_path, dataset_name="a/b")
    with pytest.raises(UserError, match="neither a folder nor a Hub id"):
        train(arguments(tmp_path / "run", model_name_or_path=f"{tmp_path}/nothing"))


def test_a_model_of_other_labels_is_refused(tmp_path):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(MODELS / "tiny_roberta", num_labels=2).save_pretrained(
        tmp_path / "m"
    )
    encoder.load_tokenizer(str(MODELS / "tiny_roberta")).save_pretrained(tmp_path / "m")
    with pytest.raises(UserError, match="the model has the labels LABEL_0, LABEL_1; expected entailment, neutral"):
        load_trained(tmp_path / "m")


def test_long_pairs_are_cut_and_counted():
    tokenizer = encoder.load_tokenizer(str(MODELS / "tiny_roberta"))
    items = [("A dog is wet.", "A pet is dry."), ("A dog is wet and " * 50, "A pet is dry.")]
    encoded, cut = encoder.encode(tokenizer, items, 32)
    short, long = (row["input_ids"] for row in encoded)
    assert (cut, len(long)) == (1, 32)
    assert long[-4:] == short[-4:], "the hypothesis stays whole"
