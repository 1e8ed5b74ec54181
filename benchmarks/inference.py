"""Sides of the jobs that label posts and pairs: ours, and what a user of transformers, PEFT or the evaluation harness does."""

from __future__ import annotations

import hashlib
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks import flops
from benchmarks.processes import Measure, Measured, Setting, finished, python, spread
from common.cli.errors import UserError
from common.runtime import hardware
from common.tables.reading import read_rows
from common.tables.writing import write_rows
from sbic_llama.data.corpus import load_splits
from sbic_llama.data.features import FEATURES, Feature
from snli_roberta.data.corpus import LABELS, Pair, load_split

OFFENSE, GROUPS = FEATURES["offensiveYN"], FEATURES["targetMinority"]
BATCH, GENERATION_BATCH = 32, 16
MAX_LABEL_TOKENS, MAX_GROUP_TOKENS = 10, 64
FIRST_POSTS, FIRST_PAIRS = 8, 64  # done before anything is timed

# ---- posts


def posts_for(setting: Setting, count: int) -> list[str]:
    """Return test posts of all lengths in random order, a subset of those of the largest side.

    They come in batches of similar length, so that a tool that sorts by length pads its few batches no more than it would pad all.
    """
    most = spread(_test_posts(setting.sbic_dir), setting.most)
    if count % BATCH:
        chosen = spread(most, count)
    else:
        batches = [most[i : i + BATCH] for i in range(0, len(most), BATCH)]
        chosen = [post for batch in spread(batches, count // BATCH) for post in batch]
    random.Random(0).shuffle(chosen)
    return chosen


@cache
def _test_posts(sbic_dir: str) -> list[str]:
    """Return the test posts, the shortest first; reading the corpus takes seconds."""
    return sorted((post.text for post in load_splits(data_dir=Path(sbic_dir))["test"].posts), key=len)


def key(post: str) -> str:
    """Return what identifies a post in a record, which must not contain the post itself."""
    return hashlib.sha256(post.encode()).hexdigest()[:12]


def _timed(setting: Setting, feature: Feature, work: Callable, count: Callable, precision: str = "") -> Measure:
    """Return a side that has warmed up; ``work`` answers posts as text, then ``count`` counts its operations."""

    def as_label(text: str) -> str:  # a text that is no label stays as it is, and agrees with nothing
        label = feature.parse(text)
        return text if label is None else feature.answer(label)

    def measure(items: int) -> Measured:
        posts = posts_for(setting, items)
        start = time.perf_counter()
        texts = work(posts)
        seconds = time.perf_counter() - start
        answers = dict(zip(map(key, posts), map(as_label, texts), strict=True))
        return Measured(len(posts), seconds, count(posts, texts), precision or setting.precision, answers)

    measure(FIRST_POSTS)
    return measure


def _annotator(setting: Setting, feature: Feature) -> Measure:
    """Load ours."""
    from sbic_llama.model.annotator import Annotator

    annotator = Annotator(setting.adapters[feature.name])

    def annotate(posts: Sequence[str]) -> list[str]:
        return [row[feature.name] for row in annotator.annotate_window(posts)]

    return _timed(setting, feature, annotate, partial(_annotator_flops, setting, feature), annotator.precision.value)


annotator_labels = partial(_annotator, feature=OFFENSE)
annotator_groups = partial(_annotator, feature=GROUPS)


def _annotator_flops(setting: Setting, feature: Feature, posts: Sequence[str], answers: Sequence[str]) -> int:
    """Count operations after the cached instruction: post and tail once, then every label or the generated groups, each without
    its last token."""
    from common.models.prompt import answer_ids
    from common.models.quantization import load_tokenizer
    from sbic_llama.data.encoding import encode

    tokenizer, shape = load_tokenizer(setting.llama), flops.read_shape(setting.llama)
    encoded = encode(tokenizer, feature, posts, max_post_tokens=10**6)
    prompts = sum(map(len, encoded.prompts)) - len(posts) * len(encoded.prefix_ids)
    if feature.classifies:
        inner = len(posts) * sum(len(ids) - 1 for ids in answer_ids(tokenizer, feature.labels))
    else:
        inner = sum(len(ids) - 1 for ids in answer_ids(tokenizer, answers))
    return flops.llama(shape, prompts + inner, len(posts) + inner)


def _prompts(feature: Feature, posts: Sequence[str]) -> list[str]:
    return [feature.prompt(post) for post in posts]


def _generated(setting: Setting, feature: Feature, tokenizer: Any, generate: Callable) -> Measure:
    """Return a side that generates; ``generate`` continues prompts. The last token of an answer, EOS, is only predicted."""

    def count(posts: Sequence[str], answers: Sequence[str]) -> int:
        before = sum(len(ids) for ids in tokenizer(_prompts(feature, posts)).input_ids)
        new = sum(len(ids) + 1 for ids in tokenizer(list(answers), add_special_tokens=False).input_ids)
        return flops.llama(flops.read_shape(setting.llama), before + new - len(answers), new)

    return _timed(setting, feature, lambda posts: generate(_prompts(feature, posts)), count)


def _generate(setting: Setting, feature: Feature, batch: int, max_new_tokens: int) -> Measure:
    """Load ``model.generate``, in batches of posts in their order."""
    model, tokenizer = _their_model(setting, feature)

    def generate(prompts: list[str]) -> list[str]:
        answers = []
        for i in range(0, len(prompts), batch):
            inputs = tokenizer(prompts[i : i + batch], return_tensors="pt", padding=True)
            out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
            answers += tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        return answers

    return _generated(setting, feature, tokenizer, generate)


generate_each = partial(_generate, feature=OFFENSE, batch=1, max_new_tokens=MAX_LABEL_TOKENS)
generate_batches = partial(_generate, feature=GROUPS, batch=GENERATION_BATCH, max_new_tokens=MAX_GROUP_TOKENS)


def post_pipeline(setting: Setting) -> Measure:
    """Load ``pipeline("text-generation")``, in batches of prompts sorted by length."""
    import transformers

    model, tokenizer = _their_model(setting, OFFENSE)
    pipe = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, batch_size=BATCH)

    def generate(prompts: list[str]) -> list[str]:
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        settings = {"max_new_tokens": MAX_LABEL_TOKENS, "do_sample": False, "return_full_text": False}
        answers = [""] * len(prompts)
        for i, outputs in zip(order, pipe([prompts[i] for i in order], **settings), strict=True):
            answers[i] = outputs[0]["generated_text"]
        return answers

    return _generated(setting, OFFENSE, tokenizer, generate)


def harness(setting: Setting) -> Measure:
    """Load lm-evaluation-harness: the log-likelihood of each label after each prompt."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = _their_model(setting, OFFENSE)
    shape, labels = flops.read_shape(setting.llama), OFFENSE.labels
    scored = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH, max_length=shape["max_position_embeddings"])

    def choose(posts: Sequence[str]) -> list[str]:
        requests = [
            Instance("loglikelihood", {}, (prompt, label), i)
            for prompt in _prompts(OFFENSE, posts)
            for i, label in enumerate(labels)
        ]
        values = [value for value, _ in scored.loglikelihood(requests, disable_tqdm=True)]
        rows = [values[i : i + len(labels)] for i in range(0, len(values), len(labels))]
        return [labels[row.index(max(row))] for row in rows]

    def count(posts: Sequence[str], _: Sequence[str]) -> int:
        texts = [prompt + label for prompt in _prompts(OFFENSE, posts) for label in labels]
        tokens = sum(len(ids) - 1 for ids in tokenizer(texts).input_ids)
        return flops.llama(shape, tokens, tokens)

    return _timed(setting, OFFENSE, choose, count)


def _their_model(setting: Setting, feature: Feature) -> tuple[Any, Any]:
    """Load the base in NF4 and its adapter with PEFT, and a tokenizer that pads on the left."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from common.models.quantization import load_tokenizer

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
    return model, tokenizer


# ---- posts, by commands


def _commands(setting: Setting, at_once: bool) -> Measure:
    """Load one command with all adapters, or one per adapter."""
    runs = [list(setting.adapters)] if at_once else [[feature] for feature in setting.adapters]

    def measure(items: int) -> Measured:
        posts = posts_for(setting, items)
        with tempfile.TemporaryDirectory(dir=setting.scratch) as name:
            folder, output = Path(name), ""
            write_rows(folder / "posts.csv", [{"post": post} for post in posts])
            start = time.perf_counter()
            for number, features in enumerate(runs):
                adapters = [word for feature in features for word in ("--adapter", setting.adapters[feature])]
                words = (folder / "posts.csv", *adapters, "--output", folder / f"{number}.csv")
                output = finished("sbic_llama.annotate", python("sbic_llama.annotate", *words))
            seconds = time.perf_counter() - start
            answers: dict[str, str] = {}
            for number, features in enumerate(runs):
                for row in (read.values for read in read_rows(folder / f"{number}.csv", ["post"])):
                    answers |= {f"{key(row['post'])} {name}": row[f"model_{name}"] for name in features}
        needed = sum(
            _annotator_flops(setting, FEATURES[name], posts, [answers[f"{key(p)} {name}"] for p in posts])
            for name in setting.adapters
        )
        precision = re.search(r" in (fp32|bf16|fp16) \(", output)
        if precision is None:
            raise UserError("sbic_llama.annotate did not print the precision that it computes in")
        return Measured(len(posts), seconds, needed, precision[1], answers)

    return measure


annotate_at_once = partial(_commands, at_once=True)
annotate_in_turn = partial(_commands, at_once=False)


# ---- pairs


def pairs_for(setting: Setting, count: int) -> list[Pair]:
    """Return test pairs in the corpus's order, a subset of those of the largest side."""
    return spread(spread(load_split("test", data_dir=Path(setting.snli_dir)).pairs, setting.most), count)


def _timed_pairs(setting: Setting, tokenizer: Any, label: Callable, precision: str) -> Measure:
    shape = flops.read_shape(setting.classifier)

    def measure(items: int) -> Measured:
        pairs = pairs_for(setting, items)
        start = time.perf_counter()
        labels = label(pairs)
        seconds = time.perf_counter() - start
        answers = {f"{p.premise}\t{p.hypothesis}": answer for p, answer in zip(pairs, labels, strict=True)}
        return Measured(len(pairs), seconds, pair_flops(shape, tokenizer, pairs), precision, answers)

    measure(FIRST_PAIRS)
    return measure


def classifier(setting: Setting) -> Measure:
    """Load ours, as predict does."""
    from snli_roberta.model.classifier import load

    loaded = load(setting.classifier, precision="auto")

    def label(pairs: list[Pair]) -> list[str]:
        return [LABELS[int(row.argmax())] for row in loaded.probabilities(pairs)]

    return _timed_pairs(setting, loaded.tokenizer, label, loaded.precision.value)


def pair_pipeline(setting: Setting) -> Measure:
    """Load ``pipeline("text-classification")``, in batches."""
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        setting.classifier, dtype=hardware.dtype(setting.precision)
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(setting.classifier)
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, batch_size=BATCH)

    def label(pairs: list[Pair]) -> list[str]:
        outputs = pipe([{"text": pair.premise, "text_pair": pair.hypothesis} for pair in pairs])
        return [output["label"] for output in outputs]

    return _timed_pairs(setting, tokenizer, label, setting.precision)


def pair_flops(shape: dict[str, Any], tokenizer: Any, pairs: Sequence[Pair]) -> int:
    """Count operations for the pairs' own tokens, padding excluded."""
    encoded = tokenizer([pair.premise for pair in pairs], [pair.hypothesis for pair in pairs]).input_ids
    return flops.encoder(shape, sum(map(len, encoded)), len(pairs))
