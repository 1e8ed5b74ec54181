"""Sides of the training jobs: ours are the product's commands; theirs TRL's command and the library's example ``run_glue.py``.

Every side sees the same rows once, then validates on the same few dozen others and saves a checkpoint. What is timed is the
loop with all that, by Trainer's own ``train_runtime``, on both sides.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import flops
from benchmarks.alternating import finished, python
from benchmarks.corpora import cut_sbic, cut_snli
from benchmarks.setting import Measure, Measured, Setting, environment
from benchmarks.snli_sides import needs
from common.cli.errors import UserError
from common.runtime.hardware import cpu_threads
from sbic_llama.data.corpus import labeled, load_splits
from sbic_llama.data.features import OFFENSIVE_YN
from snli_roberta.data.corpus import Pair, load_split

POSTS_A_STEP, PAIRS_A_STEP = 16, 32
VALIDATION_POSTS, VALIDATION_PAIRS = 32, 64
RATE, ENCODER_RATE = 1e-4, 3e-5
RANK, ALPHA = 16, 32
LENGTH = 128  # tokens to which run_glue.py pads


def qlora(setting: Setting) -> Measure:
    """Ours: ``sbic_llama.train_offensive_yn``."""

    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            data, output = Path(name) / "data", Path(name) / "output"
            posts = cut_sbic(Path(setting.sbic_dir), data, train=items, dev=VALIDATION_POSTS)
            words: list[Any] = ["--model_name_or_path", setting.llama, "--data_dir", data, "--output_dir", output]
            words += ["--per_device_train_batch_size", POSTS_A_STEP, "--num_train_epochs", 1, "--evaluations", 1]
            words += ["--learning_rate", RATE, "--r", RANK, "--lora_alpha", ALPHA, "--lora_dropout", 0]
            _product("sbic_llama.train_offensive_yn", words)
            run = training_json(output / OFFENSIVE_YN.name)
        return Measured(len(posts), run.seconds, _ours_needs(setting, posts), run.precision, facts=run.facts)

    return measure


def trl_sft(setting: Setting) -> Measure:
    """``trl sft`` with the same adapter on the same 4-bit base, whose other weights stay fp32, as by default."""
    return _trl_sft(setting)


def trl_sft_half(setting: Setting) -> Measure:
    """The same, told to load the base's other weights in bf16."""
    return _trl_sft(setting, "--dtype", "bfloat16")


def _trl_sft(setting: Setting, *more: str) -> Measure:

    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            rows = Path(name) / "rows"
            posts = cut_sbic(Path(setting.sbic_dir), Path(name) / "data", train=items, dev=VALIDATION_POSTS)
            dev = labeled(load_splits(data_dir=Path(name) / "data")["dev"], OFFENSIVE_YN.label_of)
            texts, dev_texts = (
                [{"prompt": OFFENSIVE_YN.prompt(post), "completion": OFFENSIVE_YN.target(post)} for post in each]
                for each in (posts, dev)
            )
            rows.mkdir()
            for split, each in (("train", texts), ("test", dev_texts)):
                lines = "".join(json.dumps(text) + "\n" for text in each)
                (rows / f"{split}.jsonl").write_text(lines, encoding="utf-8")
            half = setting.precision == "bf16"
            command = [
                str(Path(sys.executable).parent / "trl"), "sft", "--model_name_or_path", setting.llama,
                "--dataset_name", str(rows), "--output_dir", f"{name}/output", "--num_train_epochs", "1",
                "--per_device_train_batch_size", str(POSTS_A_STEP), "--learning_rate", str(RATE), "--use_cpu",
                "--bf16", str(half).lower(), *more,
                "--load_in_4bit", "--bnb_4bit_quant_type", "nf4", "--use_bnb_nested_quant",
                "--use_peft", "--lora_r", str(RANK), "--lora_alpha", str(ALPHA), "--lora_dropout", "0",
                "--lora_target_modules", "all-linear", "--max_length", "512", "--activation_checkpointing", "false",
                "--eval_strategy", "epoch", "--save_strategy", "epoch", "--report_to", "none",
            ]  # fmt: skip
            said = finished("trl sft", command, environment(cpu_threads()) | {"HF_DATASETS_CACHE": f"{name}/cache"})
        seconds, loss = (_last(said, key) for key in ("train_runtime", "train_loss"))
        needed = _whole_needs(setting, texts)
        return Measured(len(posts), seconds, needed, setting.precision, facts={"train_loss": loss})

    return measure


def full(setting: Setting) -> Measure:
    """Ours: ``snli_roberta.train_full``."""
    return _snli_command(setting, "full")


def lora(setting: Setting) -> Measure:
    """Ours: ``snli_roberta.train_lora``."""
    return _snli_command(setting, "lora")


def full_padded(setting: Setting) -> Measure:
    """Trainer as ``run_glue.py`` has it: every pair padded to 128 tokens."""
    return _trainer(setting, "full", padded=True)


def full_dynamic(setting: Setting) -> Measure:
    """The same with DataCollatorWithPadding: every pair padded to the longest of its batch."""
    return _trainer(setting, "full", padded=False)


def lora_padded(setting: Setting) -> Measure:
    """An adapter, every pair padded to 128 tokens."""
    return _trainer(setting, "lora", padded=True)


def lora_dynamic(setting: Setting) -> Measure:
    """An adapter, every pair padded to the longest of its batch."""
    return _trainer(setting, "lora", padded=False)


@dataclass(frozen=True)
class Run:
    seconds: float
    precision: str
    facts: dict[str, Any]


def _product(module: str, words: list[Any]) -> None:
    finished(module, python(module, *words), environment(cpu_threads()))


def training_json(folder: Path) -> Run:
    """What the product's record says of a training: its loop's seconds, precision and loss."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    (entry,) = [entry for entry in record["log"] if "train_runtime" in entry]
    return Run(entry["train_runtime"], record["precision"], {"train_loss": entry["train_loss"]})


def _last(said: str, key: str) -> float:
    """The last value of a key in what Trainer printed.

    Raises:
        UserError: There is none, or it is no number.
    """
    found = re.findall(rf"'{key}': '?([\d.e+-]+|nan)'?", said)
    if not found or not math.isfinite(float(found[-1])):
        raise UserError(f"trl sft did not say its {key}", expected="a number")
    return float(found[-1])


def _ours_needs(setting: Setting, posts: list[Any]) -> int:
    """Operations for post, tail and answer of each, the instruction once a step, logits where an answer is learnt."""
    from common.models.quantization import load_tokenizer
    from sbic_llama.training.trainer import training_rows

    rows = training_rows(load_tokenizer(setting.llama), OFFENSIVE_YN, posts, max_post_tokens=384)
    steps = math.ceil(len(posts) / POSTS_A_STEP)
    tokens = sum(map(len, rows.input_ids)) + steps * len(rows.encoded.prefix_ids)
    shape = flops.read_shape(setting.llama)
    return flops.LORA_TRAINING * flops.llama(shape, tokens, sum(map(len, rows.answers)))


def _whole_needs(setting: Setting, texts: list[dict[str, Any]]) -> int:
    """Operations for whole prompts with their completions and EOS, logits everywhere."""
    from common.models.quantization import load_tokenizer

    tokenizer = load_tokenizer(setting.llama)
    tokens = sum(len(ids) + 1 for ids in tokenizer([one["prompt"] + one["completion"] for one in texts]).input_ids)
    return flops.LORA_TRAINING * flops.llama(flops.read_shape(setting.llama), tokens, tokens)


def _snli_command(setting: Setting, method: str) -> Measure:
    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            data, output = Path(name) / "data", Path(name) / "output"
            cut_snli(Path(setting.snli_dir), data, train=items, dev=VALIDATION_PAIRS)
            words: list[Any] = ["--method", method, "--model_name_or_path", setting.encoder, "--data_dir", data]
            words += ["--output_dir", output, "--per_device_train_batch_size", PAIRS_A_STEP, "--num_train_epochs", 1]
            words += ["--evaluations", 1, "--learning_rate", ENCODER_RATE, "--r", RANK, "--lora_alpha", ALPHA]
            _product(f"snli_roberta.train_{method}", words)
            run, pairs = training_json(output), load_split("train", data_dir=data).pairs
        return Measured(len(pairs), run.seconds, _snli_needs(setting, method, pairs), run.precision, facts=run.facts)

    return measure


def _snli_needs(setting: Setting, method: str, pairs: list[Pair]) -> int:
    from snli_roberta.model.encoder import load_tokenizer

    passes = flops.TRAINING if method == "full" else flops.LORA_TRAINING
    return passes * needs(flops.read_shape(setting.encoder), load_tokenizer(setting.encoder), pairs)


def _trainer(setting: Setting, method: str, *, padded: bool) -> Measure:
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, default_data_collator

    from snli_roberta.model.encoder import add_lora, load_base, load_tokenizer
    from snli_roberta.training.arguments import TrainArguments

    tokenizer = load_tokenizer(setting.encoder)

    def rows(pairs: list[Pair]) -> Dataset:
        encoded = tokenizer(
            [pair.premise for pair in pairs],
            [pair.hypothesis for pair in pairs],
            padding="max_length" if padded else False,
            max_length=LENGTH,
            truncation=True,
        )
        return Dataset.from_dict({**encoded, "labels": [pair.label for pair in pairs]})

    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            cut_snli(Path(setting.snli_dir), Path(name), train=items, dev=VALIDATION_PAIRS)
            pairs, dev = (load_split(split, data_dir=Path(name)).pairs for split in ("train", "dev"))
            model, new_modules = load_base(setting.encoder)
            if method == "lora":
                same = TrainArguments(
                    method="lora", output_dir=Path(name), learning_rate=ENCODER_RATE, r=RANK, lora_alpha=ALPHA
                )
                model = add_lora(model, new_modules, same)
            settings = TrainingArguments(
                output_dir=f"{name}/output",
                per_device_train_batch_size=PAIRS_A_STEP,
                num_train_epochs=1,
                learning_rate=ENCODER_RATE,
                bf16=setting.precision == "bf16",
                use_cpu=True,
                eval_strategy="epoch",
                save_strategy="epoch",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            trainer = Trainer(
                model=model,
                args=settings,
                train_dataset=rows(pairs),
                eval_dataset=rows(dev),
                data_collator=default_data_collator if padded else DataCollatorWithPadding(tokenizer),
            )
            found = trainer.train().metrics
        if not math.isfinite(found["train_loss"]):
            raise UserError("Trainer's loss is no number")
        facts = {"train_loss": found["train_loss"]}
        needed = _snli_needs(setting, method, pairs)
        return Measured(len(pairs), found["train_runtime"], needed, setting.precision, facts=facts)

    return measure
