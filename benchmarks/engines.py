"""Sides that other inference engines do: ONNX Runtime for pairs, llama.cpp for posts, with the same weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import flops
from benchmarks.inference import BATCH, OFFENSE, _prompts, _timed, _timed_pairs
from benchmarks.materials import cached, product_code
from benchmarks.processes import Measure, Setting, finished, python
from common.runtime.hardware import cpu_threads
from common.tables.writing import write_rows
from snli_roberta.data.corpus import LABELS, Pair


def _onnx_runtime(setting: Setting, int8: bool) -> Measure:
    """Load ONNX Runtime, in batches of pairs sorted by length; ``int8`` quantizes dynamically, weights by channel."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(setting.classifier)
    folder = Path(tempfile.mkdtemp(dir=setting.scratch))
    names = _to_onnx(setting.classifier, tokenizer, folder / "model.onnx")
    path = folder / "model.onnx"
    if int8:
        path = folder / "int8.onnx"
        quantize_dynamic(folder / "model.onnx", path, weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    session = onnxruntime.InferenceSession(str(path), options)

    def label(pairs: list[Pair]) -> list[str]:
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].premise) + len(pairs[i].hypothesis))
        answers = [""] * len(pairs)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            texts = [pairs[i].premise for i in chosen], [pairs[i].hypothesis for i in chosen]
            inputs = tokenizer(*texts, padding=True, truncation=True, return_tensors="np")
            (logits,) = session.run(None, {name: inputs[name].astype(np.int64) for name in names})
            for i, row in zip(chosen, logits, strict=True):
                answers[i] = LABELS[int(row.argmax())]
        return answers

    return _timed_pairs(setting, tokenizer, label, "int8" if int8 else "fp32")


onnx_runtime, onnx_runtime_int8 = partial(_onnx_runtime, int8=False), partial(_onnx_runtime, int8=True)


def _to_onnx(folder: str, tokenizer: Any, path: Path) -> list[str]:
    """Write a classifier as an ONNX file; return the names of its inputs."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    example = tokenizer(["a b c"] * 2, ["d e"] * 2, return_tensors="pt")
    names = list(example)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return self.model(**dict(zip(names, values, strict=True))).logits

    torch.onnx.export(
        Logits(),
        tuple(example.values()),
        path,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: {0: "pairs", 1: "tokens"} for name in names},
        dynamo=False,
    )
    return names


def _llama_cpp(setting: Setting, storage: str, whole: bool) -> Measure:
    """Load llama.cpp's server with the merged adapter in 8 or 4 bits, which caches the instruction.

    ``whole`` has it write a label that a grammar allows; otherwise the first token of each label decides.
    """
    from common.models.llama_cpp import LlamaCpp
    from common.models.prompt import answer_ids
    from common.models.quantization import load_tokenizer

    tokenizer = load_tokenizer(setting.llama)
    server = LlamaCpp(_gguf(setting.adapters[OFFENSE.name], storage), 2048, len(tokenizer), cpu_threads())
    labels = answer_ids(tokenizer, OFFENSE.labels)
    grammar = "root ::= " + " | ".join(json.dumps(label) for label in OFFENSE.labels)
    first = {ids[0] for ids in labels}

    def answer(prompt: list[int]) -> str:
        if whole:
            most = max(map(len, labels))
            return server.ask("/completion", {"prompt": prompt, "temperature": 0, "cache_prompt": True, "n_predict": most,
                                              "grammar": grammar})["content"]  # fmt: skip
        probable = server.next_tokens(prompt, first)
        return OFFENSE.labels[max(range(len(labels)), key=lambda i: probable[labels[i][0]])]

    def write(posts: Sequence[str]) -> list[str]:
        return [answer(ids) for ids in tokenizer(_prompts(OFFENSE, posts)).input_ids]

    def count(posts: Sequence[str], answers: Sequence[str]) -> int:
        tokens = sum(map(len, tokenizer(_prompts(OFFENSE, posts)).input_ids))
        return flops.llama(flops.read_shape(setting.llama), tokens, len(posts))

    return _timed(setting, OFFENSE, write, count, storage)


llama_cpp_8_label, llama_cpp_8_token = (partial(_llama_cpp, storage="q8_0", whole=whole) for whole in (True, False))
llama_cpp_4_label, llama_cpp_4_token = (partial(_llama_cpp, storage="q4_1", whole=whole) for whole in (True, False))


def _gguf(adapter: str, storage: str) -> Path:
    """Return an adapter merged into its base as a GGUF file, made by the product's command."""

    def make(folder: Path) -> None:
        text = folder / "post.csv"
        write_rows(text, [{"post": "A post, because an export compares answers."}])
        options = {"to": "gguf", "dtype": storage, "output_dir": folder / "exported", "texts": text, "max_flips": 1}
        finished("sbic_llama.export", python("sbic_llama.export", adapter, **options))

    (path,) = cached(f"gguf-{storage}", [adapter, storage, product_code()], make).glob("exported/*.gguf")
    return path
