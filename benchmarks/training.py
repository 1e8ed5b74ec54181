"""Sides of the training jobs: our commands, TRL's command, and the library's example ``run_glue.py``.

Every side trains once on the same rows, then validates on the same few dozen others and saves a checkpoint. The time is that of
the whole loop, from Trainer's own ``train_runtime``. What shows that two sides do the same job is the validation loss of QLoRA,
whose first steps change the loss of the rows still to come, and the mean training loss of the encoders.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import flops
from benchmarks.inference import pair_flops
from benchmarks.materials import cut_sbic, cut_snli
from benchmarks.processes import Measure, Measured, Setting, finished, python
from common.cli.errors import UserError
from common.tables.writing import write_rows
from sbic_llama.data.corpus import labeled, load_splits
from sbic_llama.data.features import OFFENSIVE_YN
from snli_roberta.data.corpus import LABELS, Pair, load_split

POSTS_PER_STEP, PAIRS_PER_STEP = 16, 32
VALIDATION_POSTS, VALIDATION_PAIRS = 32, 64
RATE, ENCODER_RATE = 1e-4, 3e-5
RANK, ALPHA = 16, 32
LENGTH = 128  # tokens to which run_glue.py pads


def train(module: str, output: Path, loss: str = "train_loss", **options: Any) -> tuple[float, str, dict[str, Any]]:
    """Run one of our training commands; return its seconds, precision and last ``loss`` from the record in ``output``."""
    finished(module, python(module, **options))
    record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    values = {name: value for entry in record["log"] for name, value in entry.items()}
    return values["train_runtime"], record["precision"], {"loss": values[loss]}


# ---- QLoRA


def qlora(setting: Setting) -> Measure:
    """Load ours: ``sbic_llama.train_offensive_yn``."""

    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            data, output = Path(name) / "data", Path(name) / "output"
            posts = cut_sbic(Path(setting.sbic_dir), data, train=items, dev=VALIDATION_POSTS)
            options = {"model_name_or_path": setting.llama, "data_dir": data, "output_dir": output}
            options |= {"per_device_train_batch_size": POSTS_PER_STEP, "num_train_epochs": 1, "evaluations": 1}
            options |= {"learning_rate": RATE, "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0}
            options |= {"prompt": "study", "warmup_ratio": 0}  # as trl does
            seconds, precision, facts = train(
                "sbic_llama.train_offensive_yn", output / OFFENSIVE_YN.name, "eval_loss", **options
            )
        return Measured(len(posts), seconds, _qlora_flops(setting, posts), precision, facts=facts)

    return measure


def trl_sft(setting: Setting, **more: str) -> Measure:
    """Load ``trl sft``: the same adapter on the same 4-bit base, with the other weights in fp32 as by default."""
    from common.models.quantization import load_tokenizer

    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            rows = Path(name) / "rows"
            posts = cut_sbic(Path(setting.sbic_dir), Path(name) / "data", train=items, dev=VALIDATION_POSTS)
            dev = labeled(load_splits(data_dir=Path(name) / "data")["dev"], OFFENSIVE_YN.label_of)
            texts, dev_texts = (
                [{"prompt": OFFENSIVE_YN.prompt(post.text), "completion": OFFENSIVE_YN.target(post)} for post in each]
                for each in (posts, dev)
            )
            rows.mkdir()
            for split, each in (("train", texts), ("test", dev_texts)):
                write_rows(rows / f"{split}.jsonl", each)
            options = {
                "model_name_or_path": setting.llama, "dataset_name": rows, "output_dir": f"{name}/output",
                "num_train_epochs": 1, "per_device_train_batch_size": POSTS_PER_STEP, "learning_rate": RATE,
                "use_cpu": True, "bf16": setting.precision == "bf16", **more,
                "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True,
                "use_peft": True, "lora_r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0,
                "lora_target_modules": "all-linear", "max_length": 512, "activation_checkpointing": False,
                "eval_strategy": "epoch", "save_strategy": "epoch", "report_to": "none",
            }  # fmt: skip
            output = finished("trl sft", python("trl.cli.main", "sft", **options), HF_DATASETS_CACHE=f"{name}/cache")
        seconds, loss = (_last_value(output, key) for key in ("train_runtime", "eval_loss"))
        # Whole prompts with their completions and EOS, and logits everywhere.
        encoded = load_tokenizer(setting.llama)([text["prompt"] + text["completion"] for text in texts]).input_ids
        tokens = sum(len(ids) + 1 for ids in encoded)
        needed = flops.LORA_TRAINING * flops.llama(flops.read_shape(setting.llama), tokens, tokens)
        return Measured(len(posts), seconds, needed, setting.precision, facts={"loss": loss})

    return measure


trl_sft_half = partial(trl_sft, dtype="bfloat16")  # the base's other weights in bf16


def _last_value(output: str, key: str) -> float:
    values = re.findall(rf"'{key}': '?([\d.e+-]+|nan)'?", output)
    if not values or not math.isfinite(float(values[-1])):
        raise UserError(f"trl sft printed no finite {key}", expected="a number")
    return float(values[-1])


def _qlora_flops(setting: Setting, posts: list[Any]) -> int:
    """Count post, tail and answer of each, the instruction once per step, and logits only where an answer is learned."""
    from common.models.quantization import load_tokenizer
    from sbic_llama.training.trainer import training_rows

    rows = training_rows(load_tokenizer(setting.llama), OFFENSIVE_YN, posts, max_post_tokens=384)
    steps = math.ceil(len(posts) / POSTS_PER_STEP)
    tokens = sum(map(len, rows.input_ids)) + (steps - len(posts)) * len(rows.encoded.prefix_ids)
    shape = flops.read_shape(setting.llama)
    return flops.LORA_TRAINING * flops.llama(shape, tokens, sum(map(len, rows.answers)))


# ---- SNLI


def snli_options(method: str, base: object, data: object, output: object) -> dict[str, Any]:
    """Return the options of one of our training commands for one epoch."""
    options = {"method": method, "model_name_or_path": base, "data_dir": data, "output_dir": output}
    options |= {"per_device_train_batch_size": PAIRS_PER_STEP, "num_train_epochs": 1, "evaluations": 1}
    return options | {"learning_rate": ENCODER_RATE}


def _command(setting: Setting, method: str) -> Measure:
    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            data, output = Path(name) / "data", Path(name) / "output"
            cut_snli(Path(setting.snli_dir), data, train=items, dev=VALIDATION_PAIRS)
            options = snli_options(method, setting.encoder, data, output) | {"r": RANK, "lora_alpha": ALPHA}
            seconds, precision, facts = train(f"snli_roberta.train_{method}", output, **options)
            pairs = load_split("train", data_dir=data).pairs
        return Measured(len(pairs), seconds, _snli_flops(setting, method, pairs), precision, facts=facts)

    return measure


def _snli_flops(setting: Setting, method: str, pairs: list[Pair]) -> int:
    from common.models.encoder import load_tokenizer

    passes = flops.TRAINING if method == "full" else flops.LORA_TRAINING
    return passes * pair_flops(flops.read_shape(setting.encoder), load_tokenizer(setting.encoder), pairs)


def _trainer(setting: Setting, method: str, *, padded: bool) -> Measure:
    """Load Trainer with every pair padded to 128 tokens, as in ``run_glue.py``, or to the longest of its batch."""
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, default_data_collator

    from common.models.encoder import add_lora, load_base, load_tokenizer
    from snli_roberta.training.arguments import TrainArguments

    tokenizer = load_tokenizer(setting.encoder)

    def rows(pairs: list[Pair]) -> Dataset:
        texts = [pair.premise for pair in pairs], [pair.hypothesis for pair in pairs]
        padding = "max_length" if padded else False
        encoded = tokenizer(*texts, padding=padding, max_length=LENGTH, truncation=True)
        return Dataset.from_dict({**encoded, "labels": [pair.label for pair in pairs]})

    def measure(items: int) -> Measured:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            cut_snli(Path(setting.snli_dir), Path(name), train=items, dev=VALIDATION_PAIRS)
            pairs, dev = (load_split(split, data_dir=Path(name)).pairs for split in ("train", "dev"))
            model, new_modules = load_base(setting.encoder, labels=LABELS)
            if method == "lora":
                lora = {"output_dir": Path(name), "learning_rate": ENCODER_RATE, "r": RANK, "lora_alpha": ALPHA}
                model = add_lora(model, new_modules, TrainArguments(method="lora", **lora))
            settings = TrainingArguments(
                output_dir=f"{name}/output", per_device_train_batch_size=PAIRS_PER_STEP, num_train_epochs=1,
                learning_rate=ENCODER_RATE, bf16=setting.precision == "bf16", use_cpu=True, eval_strategy="epoch",
                save_strategy="epoch", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
            )  # fmt: skip
            collator = default_data_collator if padded else DataCollatorWithPadding(tokenizer)
            data = {"train_dataset": rows(pairs), "eval_dataset": rows(dev), "data_collator": collator}
            trainer = Trainer(model=model, args=settings, **data)
            metrics = trainer.train().metrics
        if not math.isfinite(metrics["train_loss"]):
            raise UserError("Trainer's loss is NaN or infinite")
        facts, needed = {"loss": metrics["train_loss"]}, _snli_flops(setting, method, pairs)
        return Measured(len(pairs), metrics["train_runtime"], needed, setting.precision, facts=facts)

    return measure


full, lora = (partial(_command, method=method) for method in ("full", "lora"))
full_padded, full_dynamic = (partial(_trainer, method="full", padded=padded) for padded in (True, False))
lora_padded, lora_dynamic = (partial(_trainer, method="lora", padded=padded) for padded in (True, False))
