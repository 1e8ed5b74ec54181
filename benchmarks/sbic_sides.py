"""Sides of the jobs that annotate posts: ours, and what a user of transformers, PEFT or the evaluation harness would do instead."""

from __future__ import annotations

import csv
import hashlib
import random
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import flops
from benchmarks.alternating import finished, python
from benchmarks.setting import Measure, Measured, Setting, environment, spread
from common.cli.errors import UserError
from common.models.prompt import TAIL
from common.runtime.hardware import cpu_threads
from sbic_llama.data.corpus import load_splits
from sbic_llama.data.features import FEATURES, Feature

LABELS, GROUPS = FEATURES["offensiveYN"], FEATURES["targetMinority"]
BATCH, GENERATION_BATCH = 32, 16
MAX_LABEL_TOKENS, MAX_GROUP_TOKENS = 10, 64
FIRST = 8  # posts before anything is timed


def posts_for(setting: Setting, count: int) -> list[str]:
    """Test posts of all lengths in an order of chance: a side's are among those of the side that takes most.

    They come as batches of neighbours in length: a tool that sorts by length pads its few batches no more than if it had all.
    """
    posts = sorted((post.text for post in load_splits(data_dir=Path(setting.sbic_dir))["test"].posts), key=len)
    most = spread(posts, setting.most)
    if count % BATCH:
        chosen = spread(most, count)
    else:
        batches = [most[i : i + BATCH] for i in range(0, len(most), BATCH)]
        chosen = [post for batch in spread(batches, count // BATCH) for post in batch]
    random.Random(0).shuffle(chosen)
    return chosen


def key(post: str) -> str:
    """What answers are compared by: posts themselves stay out of records."""
    return hashlib.sha256(post.encode()).hexdigest()[:12]


def annotator_labels(setting: Setting) -> Measure:
    """Ours, offensiveYN."""
    return _annotator(setting, LABELS)


def annotator_groups(setting: Setting) -> Measure:
    """Ours, targetMinority."""
    return _annotator(setting, GROUPS)


def _annotator(setting: Setting, feature: Feature) -> Measure:
    from common.models.quantization import load_tokenizer
    from sbic_llama.model.annotator import Annotator

    annotator = Annotator(setting.adapters[feature.name])
    tokenizer, shape = load_tokenizer(setting.llama), flops.read_shape(setting.llama)

    def measure(items: int) -> Measured:
        posts = posts_for(setting, items)
        start = time.perf_counter()
        rows = annotator.annotate_window(posts)
        seconds = time.perf_counter() - start
        answers = [row[feature.name] for row in rows]
        needed = _ours_needs(tokenizer, shape, feature, posts, answers)
        return Measured(
            len(posts), seconds, needed, annotator.precision.value, dict(zip(map(key, posts), answers, strict=True))
        )

    measure(FIRST)
    return measure


def _ours_needs(
    tokenizer: Any, shape: dict[str, Any], feature: Feature, posts: Sequence[str], answers: Sequence[str]
) -> int:
    """Operations behind the cached instruction: post and tail once; of labels every one but its last token, of groups those that
    were generated."""
    from sbic_llama.data.encoding import answer_ids, encode

    encoded = encode(tokenizer, feature, posts, max_post_tokens=10**6)
    prompts = sum(len(ids) + len(encoded.tail_ids) for ids in encoded.post_ids)
    if feature.classifies:
        inner = len(posts) * sum(len(ids) - 1 for ids in answer_ids(tokenizer, feature.labels))
    else:
        inner = sum(len(ids) - 1 for ids in answer_ids(tokenizer, answers))
    return flops.llama(shape, prompts + inner, len(posts) + inner)


def generate_each(setting: Setting) -> Measure:
    """``model.generate``, a post at a time."""
    model, tokenizer, shape = _their_model(setting, LABELS)

    def generate(posts: Sequence[str]) -> tuple[list[str], int]:
        answers, needed = [], 0
        for prompt in _prompts(LABELS, posts):
            given = tokenizer(prompt, return_tensors="pt")
            out = model.generate(**given, max_new_tokens=MAX_LABEL_TOKENS, do_sample=False)[0]
            start = given.input_ids.shape[1]
            answers.append(tokenizer.decode(out[start:], skip_special_tokens=True))
            needed += flops.llama(shape, len(out) - 1, len(out) - start)
        return answers, needed

    return _timed(setting, LABELS, generate)


def pipeline(setting: Setting) -> Measure:
    """``pipeline("text-generation")`` in batches, prompts sorted by length."""
    import transformers

    model, tokenizer, shape = _their_model(setting, LABELS)
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, batch_size=BATCH)

    def generate(posts: Sequence[str]) -> tuple[list[str], int]:
        prompts = _prompts(LABELS, posts)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        settings = {"max_new_tokens": MAX_LABEL_TOKENS, "do_sample": False, "return_full_text": False}
        answers = [""] * len(prompts)
        for i, found in zip(order, pipe([prompts[i] for i in order], **settings), strict=True):
            answers[i] = found[0]["generated_text"]
        return answers, _generation_needs(tokenizer, shape, prompts, answers)

    return _timed(setting, LABELS, generate)


def generate_batches(setting: Setting) -> Measure:
    """``model.generate`` in batches as the posts come."""
    model, tokenizer, shape = _their_model(setting, GROUPS)

    def generate(posts: Sequence[str]) -> tuple[list[str], int]:
        prompts, answers = _prompts(GROUPS, posts), []
        for i in range(0, len(prompts), GENERATION_BATCH):
            given = tokenizer(prompts[i : i + GENERATION_BATCH], return_tensors="pt", padding=True)
            out = model.generate(**given, max_new_tokens=MAX_GROUP_TOKENS, do_sample=False)
            answers += tokenizer.batch_decode(out[:, given.input_ids.shape[1] :], skip_special_tokens=True)
        return answers, _generation_needs(tokenizer, shape, prompts, answers)

    return _timed(setting, GROUPS, generate)


def harness(setting: Setting) -> Measure:
    """lm-evaluation-harness: the log-likelihood of each label behind each prompt."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer, shape = _their_model(setting, LABELS)
    scored = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, max_length=shape["max_position_embeddings"])
    count = len(LABELS.labels)

    def choose(posts: Sequence[str]) -> tuple[list[str], int]:
        prompts = _prompts(LABELS, posts)
        requests = [
            Instance("loglikelihood", {}, (prompt, label), i) for prompt in prompts for i, label in enumerate(LABELS.labels)
        ]  # fmt: skip
        found = [value for value, _ in scored.loglikelihood(requests, disable_tqdm=True)]
        rows = [found[i : i + count] for i in range(0, len(found), count)]
        tokens = sum(len(tokenizer(prompt + label).input_ids) - 1 for prompt in prompts for label in LABELS.labels)
        return [LABELS.labels[row.index(max(row))] for row in rows], flops.llama(shape, tokens, tokens)

    return _timed(setting, LABELS, choose)


def _their_model(setting: Setting, feature: Feature) -> tuple[Any, Any, dict[str, Any]]:
    """Base in NF4 with the adapter on it as PEFT loads them, a tokenizer that pads on the left, and the base's shape."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from common.models.quantization import load_tokenizer
    from common.runtime import hardware

    dtype = hardware.dtype(setting.precision)
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    model = AutoModelForCausalLM.from_pretrained(
        setting.llama, quantization_config=four_bits, device_map={"": "cpu"}, dtype=dtype
    )
    tokenizer = load_tokenizer(setting.llama)
    tokenizer.padding_side = "left"
    model = PeftModel.from_pretrained(model, setting.adapters[feature.name]).eval()
    return model, tokenizer, flops.read_shape(setting.llama)


def _prompts(feature: Feature, posts: Sequence[str]) -> list[str]:
    return [f"{feature.opening}{post}{TAIL}" for post in posts]


def _generation_needs(tokenizer: Any, shape: dict[str, Any], prompts: Sequence[str], answers: Sequence[str]) -> int:
    """Operations for whole prompts and the answers' tokens; the last one, EOS, is only predicted."""
    given = sum(len(ids) for ids in tokenizer(list(prompts)).input_ids)
    new = sum(len(ids) + 1 for ids in tokenizer(list(answers), add_special_tokens=False).input_ids)
    return flops.llama(shape, given + new - len(answers), new)


def _timed(setting: Setting, feature: Feature, work: Any) -> Measure:
    """``work``, which gives the answers to posts as text and what they needed, as a side that has begun once."""

    def measure(items: int) -> Measured:
        posts = posts_for(setting, items)
        start = time.perf_counter()
        texts, needed = work(posts)
        seconds = time.perf_counter() - start
        answers = [_as_label(feature, text) for text in texts]
        return Measured(
            len(posts), seconds, needed, setting.precision, dict(zip(map(key, posts), answers, strict=True))
        )

    measure(FIRST)
    return measure


def _as_label(feature: Feature, text: str) -> str:
    """A generated text as the product writes a label; what is none stays as it is, and agrees with nothing."""
    label = feature.parse(text)
    return text if label is None else feature.answer(label)


def annotate_at_once(setting: Setting) -> Measure:
    """Ours: one command with all adapters."""
    return _commands(setting, [list(setting.adapters)])


def annotate_in_turn(setting: Setting) -> Measure:
    """A command for each adapter."""
    return _commands(setting, [[feature] for feature in setting.adapters])


def _commands(setting: Setting, runs: list[list[str]]) -> Measure:
    def measure(items: int) -> Measured:
        posts = posts_for(setting, items)
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            folder = Path(name)
            with open(folder / "posts.csv", "w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([["post"], *([post] for post in posts)])
            said = ""
            start = time.perf_counter()
            for number, features in enumerate(runs):
                adapters = [word for feature in features for word in ("--adapter", setting.adapters[feature])]
                words = (folder / "posts.csv", *adapters, "--output", folder / f"{number}.csv")
                said = finished(
                    "sbic_llama.annotate", python("sbic_llama.annotate", *words), environment(cpu_threads())
                )
            seconds = time.perf_counter() - start
            answers: dict[str, str] = {}
            for number, features in enumerate(runs):
                with open(folder / f"{number}.csv", encoding="utf-8", newline="") as file:
                    for row in csv.DictReader(file):
                        answers |= {f"{key(row['post'])} {name}": row[f"model_{name}"] for name in features}
        return Measured(len(posts), seconds, _needs(setting, posts, answers), _precision(said), answers)

    return measure


def _needs(setting: Setting, posts: Sequence[str], answers: dict[str, str]) -> int:
    from common.models.quantization import load_tokenizer

    tokenizer, shape = load_tokenizer(setting.llama), flops.read_shape(setting.llama)
    return sum(
        _ours_needs(tokenizer, shape, FEATURES[name], posts, [answers[f"{key(post)} {name}"] for post in posts])
        for name in setting.adapters
    )


def _precision(said: str) -> str:
    """In what a command computed, as it says itself.

    Raises:
        UserError: It does not say so.
    """
    found = re.search(r" in (fp32|bf16|fp16) \(", said)
    if found is None:
        raise UserError("sbic_llama.annotate no longer says in which precision it computes")
    return found[1]
