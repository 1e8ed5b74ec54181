"""Sides of the job that labels pairs of sentences: ours, and the library's own pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import flops
from benchmarks.setting import Measure, Measured, Setting, spread
from snli_roberta.data.corpus import LABELS, Pair, load_split

BATCH = 32
FIRST = 64  # pairs before anything is timed


def pairs_for(setting: Setting, count: int) -> list[Pair]:
    """Test pairs in the corpus's order; a side's are among those of the side that takes most."""
    return spread(spread(load_split("test", data_dir=Path(setting.snli_dir)).pairs, setting.most), count)


def classifier(setting: Setting) -> Measure:
    """Ours."""
    from snli_roberta.model.classifier import load

    loaded = load(setting.classifier, precision="auto")  # as predict does
    shape = flops.read_shape(setting.classifier)

    def measure(items: int) -> Measured:
        pairs = pairs_for(setting, items)
        start = time.perf_counter()
        probabilities = loaded.probabilities(pairs)
        seconds = time.perf_counter() - start
        answers = [LABELS[int(row.argmax())] for row in probabilities]
        needed = needs(shape, loaded.tokenizer, pairs)
        return Measured(len(pairs), seconds, needed, precision, _keyed(pairs, answers))

    with computed_in(loaded.model) as seen:
        loaded.probabilities(pairs_for(setting, FIRST))
    (precision,) = seen
    return measure


def pipeline(setting: Setting) -> Measure:
    """``pipeline("text-classification")`` in batches."""
    import transformers

    from common.runtime import hardware

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        setting.classifier, dtype=hardware.dtype(setting.precision)
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(setting.classifier)
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, batch_size=BATCH)
    shape = flops.read_shape(setting.classifier)

    def measure(items: int) -> Measured:
        pairs = pairs_for(setting, items)
        start = time.perf_counter()
        found = pipe([{"text": pair.premise, "text_pair": pair.hypothesis} for pair in pairs])
        seconds = time.perf_counter() - start
        answers = _keyed(pairs, [one["label"] for one in found])
        return Measured(len(pairs), seconds, needs(shape, tokenizer, pairs), setting.precision, answers)

    measure(FIRST)
    return measure


def needs(shape: dict[str, Any], tokenizer: Any, pairs: Sequence[Pair]) -> int:
    """Operations for the pairs' own tokens."""
    encoded = tokenizer([pair.premise for pair in pairs], [pair.hypothesis for pair in pairs]).input_ids
    return flops.encoder(shape, sum(map(len, encoded)), len(pairs))


def _keyed(pairs: Sequence[Pair], answers: Sequence[str]) -> dict[str, str]:
    return {f"{pair.premise}\t{pair.hypothesis}": answer for pair, answer in zip(pairs, answers, strict=True)}


class computed_in:
    """While entered, watches in which precision a model's linear layers answer: autocast and converted weights look alike."""

    def __init__(self, model: Any):
        self.model = model

    def __enter__(self) -> set[str]:
        import torch

        names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
        seen: set[str] = set()
        inner = [m for n, m in self.model.named_modules() if isinstance(m, torch.nn.Linear) and ".layer." in n]
        self._hooks = [m.register_forward_hook(lambda _, __, out: seen.add(names[out.dtype])) for m in inner]
        return seen

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
