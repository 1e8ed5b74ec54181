"""How well the miniature can be learnt, with plain training loops: ``python tests/miniature/learnability.py --seeds 0 1 2``.

The loops are nothing but the methods (full fine-tuning, LoRA, QLoRA in NF4), so the numbers measure the miniature itself. Prints a
line an arm: test score, and training seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import run
from common.miniature import cache as corpora
from common.miniature.pretrain import MODELS
from common.stats.metrics import evaluate

LINEAR_ROBERTA = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


@dataclass
class LearnabilityArguments:
    """Trains every arm on the miniature for each seed and prints the test scores."""

    seeds: tuple[int, ...] = option((0,), "seeds")


@dataclass(frozen=True)
class Outcome:
    """Balanced accuracy on the test split before and after training, and the training's wall seconds."""

    untouched: float
    trained: float
    seconds: float


def train(model: torch.nn.Module, batches: Callable[[], list[dict]], *, epochs: int, learning_rate: float) -> float:
    """AdamW with warm-up and linear decay over ``epochs`` calls of ``batches``. Returns wall seconds."""
    start = time.monotonic()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    steps, step = epochs * len(batches()), 0
    model.train()
    for _ in range(epochs):
        for batch in batches():
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(step / 30, max(0.02, 1 - step / steps))
            loss = model(**batch).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    return time.monotonic() - start


def snli_arm(method: str, seed: int) -> Outcome:
    """Full fine-tuning or LoRA on all linear layers of the encoder, 3 epochs in batches of 32."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from snli_roberta.data.corpus import LABELS, load_split

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny_roberta")
    splits = {}
    for name in ("train", "test"):
        pairs = load_split(name, data_dir=corpora.build() / "snli_1.0").pairs
        encoded = tokenizer([p.premise for p in pairs], [p.hypothesis for p in pairs]).input_ids
        splits[name] = [(torch.tensor(ids), pair.label) for ids, pair in zip(encoded, pairs, strict=True)]

    def batch(rows: list) -> dict[str, torch.Tensor]:
        ids = pad_sequence([row[0] for row in rows], batch_first=True, padding_value=tokenizer.pad_token_id)
        labels = torch.tensor([row[1] for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != tokenizer.pad_token_id).long(), "labels": labels}

    def score() -> float:
        model.eval()
        predictions: list[int] = []
        with torch.inference_mode():
            for i in range(0, len(splits["test"]), 256):
                predictions += model(**batch(splits["test"][i : i + 256])).logits.argmax(-1).tolist()
        return evaluate([label for _, label in splits["test"]], predictions, LABELS)["balanced_accuracy"]["value"]

    model = AutoModelForSequenceClassification.from_pretrained(MODELS / "tiny_roberta", num_labels=len(LABELS))
    untouched = score()
    if method == "lora":
        config = LoraConfig(task_type="SEQ_CLS", r=16, lora_alpha=32, target_modules=LINEAR_ROBERTA)
        model = get_peft_model(model, config)
    order = random.Random(seed)

    def epoch() -> list[dict]:
        rows = order.sample(splits["train"], len(splits["train"]))
        return [batch(rows[i : i + 32]) for i in range(0, len(rows), 32)]

    seconds = train(model, epoch, epochs=3, learning_rate={"full": 3e-4, "lora": 1e-3}[method])
    return Outcome(untouched, score(), seconds)


def sbic_arm(feature_name: str, seed: int) -> Outcome:
    """QLoRA (NF4, double quantisation) on all linear layers, 2 epochs in batches of 16; scored on the clear posts.

    A post is clear when its annotators gave the same level. The label with the highest log-probability is the answer.
    """
    import bitsandbytes
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    from common.models import prompt
    from sbic_llama.data.corpus import load_splits
    from sbic_llama.data.features import FEATURES

    torch.manual_seed(seed)
    feature = FEATURES[feature_name]
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "tiny_llama")

    def ids(text: str) -> list[int]:
        return prompt.following_ids(tokenizer, [text])[0]

    head = prompt.opening_ids(tokenizer, feature.opening)
    tail, answers = ids(prompt.TAIL), [[*ids(label), tokenizer.eos_token_id] for label in feature.labels]
    splits = load_splits(data_dir=corpora.build() / "SBIC.v2")

    def items(name: str, clear_only: bool) -> list[tuple[list[int], int]]:
        found = []
        for post in splits[name].posts:
            label = feature.label_of(post)
            clear = len({a.offensive for a in post.annotations} - {None}) == 1
            if label is not None and (clear or not clear_only):
                found.append(([*head, *ids(post.text), *tail], label))
        return found

    def batch(rows: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
        inputs = [torch.tensor(prompt + answers[label]) for prompt, label in rows]
        targets = [torch.tensor([-100] * len(prompt) + answers[label]) for prompt, label in rows]
        mask = pad_sequence([torch.ones_like(row) for row in inputs], batch_first=True)
        padded = pad_sequence(inputs, batch_first=True, padding_value=tokenizer.pad_token_id)
        return {
            "input_ids": padded,
            "attention_mask": mask,
            "labels": pad_sequence(targets, batch_first=True, padding_value=-100),
        }

    test = items("test", clear_only=True)

    def score() -> float:
        model.eval()
        predictions: list[int] = []
        with torch.inference_mode():
            for i in range(0, len(test), 64):
                sums = []
                for label in range(len(answers)):
                    rows = batch([(prompt, label) for prompt, _ in test[i : i + 64]])
                    targets = rows.pop("labels")[:, 1:]
                    log_probabilities = model(**rows).logits[:, :-1].log_softmax(-1)
                    picked = log_probabilities.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
                    sums.append((picked * (targets >= 0)).sum(-1))
                predictions += torch.stack(sums, 1).argmax(1).tolist()
        return evaluate([label for _, label in test], predictions, feature.labels)["balanced_accuracy"]["value"]

    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        MODELS / "tiny_llama", quantization_config=quantisation, device_map={"": "cpu"}, dtype=torch.float32
    )
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            # Scoring first would repack the weights for a kernel without gradients.
            module.support_avx512bf16_for_cpu = False
    untouched = score()
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear"))
    train_items, order = items("train", clear_only=False), random.Random(seed)

    def epoch() -> list[dict]:
        rows = order.sample(train_items, len(train_items))
        return [batch(rows[i : i + 16]) for i in range(0, len(rows), 16)]

    seconds = train(model, epoch, epochs=2, learning_rate=2e-3)
    return Outcome(untouched, score(), seconds)


ARMS: dict[str, Callable[[int], Outcome]] = {
    "SNLI full fine-tuning": lambda seed: snli_arm("full", seed),
    "SNLI LoRA": lambda seed: snli_arm("lora", seed),
    "SBIC hasBiasedImplication QLoRA": lambda seed: sbic_arm("hasBiasedImplication", seed),
    "SBIC offensiveYN QLoRA": lambda seed: sbic_arm("offensiveYN", seed),
}


def main() -> None:
    arguments = parse(LearnabilityArguments, prog="python tests/miniature/learnability.py")
    for seed in arguments.seeds:
        for name, arm in ARMS.items():
            log(f"seed {seed}: {name}")
            outcome = arm(seed)
            print(
                f"seed {seed}  {name:32}  untouched {outcome.untouched:.4f}  trained {outcome.trained:.4f}  "
                f"{outcome.seconds:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    run(main)
