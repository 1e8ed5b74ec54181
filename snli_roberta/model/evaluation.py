"""Score classifiers and baselines on SNLI's test split, and keep their records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.errors import UserError
from common.models.loading import base_of, base_path
from common.results.finding import stem
from common.results.record import RunRecord, training_costs
from common.results.scoring import ScoredSet, class_counts, keep
from common.runtime import hardware
from common.runtime.processes import ALONE, Processes
from common.stats import baselines
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, Split, pair_id, pairs_fingerprint, training_sample
from snli_roberta.model.classifier import Classifier
from snli_roberta.training.arguments import CorpusArguments

TASK = "SNLI: does the premise entail the hypothesis?"
QUESTION = "Given a premise, is a hypothesis entailed, contradicted, or neither (neutral)?"
LIMITS = (
    "How well a model reads other kinds of sentences, how far it can be trusted where people disagree, or whether it "
    "reasons at all: the hypothesis-only baseline shows how much the wording alone gives away."
)
ALL_PAIRS = {"balance_classes": False, "train_fraction": 1.0, "sample_seed": 0}


def task_of(corpus: CorpusArguments) -> str:
    """Return the name of the task in records."""
    return TASK if corpus.is_snli else f"{corpus.dataset_name}{TASK.removeprefix('SNLI')}"


def load_sets(corpus: CorpusArguments, sampling: Mapping[str, Any] | None) -> tuple[list[Pair], ScoredSet, Split]:
    """Load the training pairs that settings of a training select (None: all), the set to score, and the test split."""
    train, test = corpus.load("train", "test")
    data = corpus.corpus_name
    gold = "given by at least three of five annotators" if corpus.is_snli else "the dataset's"
    pairs = training_sample(train.pairs, **{key: (sampling or ALL_PAIRS)[key] for key in SAMPLING})
    counts = {f"train, {data}": class_counts(train.labels, LABELS)}
    if len(pairs) < len(train.pairs):
        counts["train, sampled"] = class_counts([pair.label for pair in pairs], LABELS)
    scored = ScoredSet(
        task=task_of(corpus),
        question=QUESTION,
        limits=LIMITS,
        data=data,
        split="test",
        names=LABELS,
        labels=test.labels,
        fingerprint=test.fingerprint(),
        class_counts=counts | {f"test, {data}": class_counts(test.labels, LABELS)},
        reports=[train.report, test.report],
        policy={
            "gold label": f"{gold}; pairs without one are dropped",
            "training pairs used": f"{len(pairs):,} of {len(train.pairs):,}",
        },
        miniature=corpus.on_miniature,
    )
    return pairs, scored, test


def predictors(pairs: list[Pair], test: Split, seed: int) -> dict[str, Callable[[], Any]]:
    """Return the baselines without a neural network, trained on the same pairs as the model."""
    labels = [pair.label for pair in pairs]

    def tfidf(*columns: str) -> Any:
        texts, test_texts = (
            [tuple(getattr(pair, column) for column in columns) for pair in items] for items in (pairs, test.pairs)
        )
        return baselines.tfidf(texts, labels, test_texts, seed=seed)

    return {
        "majority label": lambda: baselines.majority(labels, len(test.pairs)),
        "TF-IDF, hypothesis only": lambda: tfidf("hypothesis"),
        "TF-IDF, both sentences": lambda: tfidf("premise", "hypothesis"),
    }


def score_baselines(
    scored: ScoredSet,
    pairs: list[Pair],
    test: Split,
    trained: tuple[Path, dict[str, Any]] | None,
    *,
    module: str,
    output_dir: Path,
    seed: int,
) -> list[RunRecord]:
    """Score the baselines and, given a model's folder and record of training, its base with an untrained head."""
    from transformers import set_seed

    from common.models import encoder

    records: list[RunRecord] = []

    def measure(title: str, predict: Callable[[], Any]) -> None:
        path = output_dir / record_name(len(records) + 1, title)
        records.append(scored.measure(title, predict, module=module, seed=seed, path=path))

    for title, predict in predictors(pairs, test, seed).items():
        measure(title, predict)
    if trained:
        folder, facts = trained
        revision = facts["base"]["commit"]
        base = base_path(base_of(folder, facts["base"]["name"], revision, local=True))
        set_seed(seed)
        untrained = encoder.load_base(base, revision, labels=LABELS)[0]
        tokenizer = encoder.load_tokenizer(base, revision)
        encoder.fit(untrained, tokenizer, base)
        untrained.to(hardware.device_type())
        length = facts["settings"]["max_length"]
        texts = [pair.texts for pair in test.pairs]
        logits = partial(encoder.predict_logits, untrained, tokenizer, texts, max_length=length)
        measure("untrained head", lambda: logits().argmax(-1))
    return records


def score_model(
    model: Classifier,
    title: str,
    scored: ScoredSet,
    test: Split,
    baselines: list[RunRecord],
    *,
    module: str,
    path: Path,
    seed: int,
    processes: Processes = ALONE,
) -> RunRecord:
    """Score a model; if its folder is ours, keep the record and its answers there too."""
    probabilities = np.zeros((0, len(LABELS)))

    def predict() -> np.ndarray:
        nonlocal probabilities
        probabilities = split_probabilities(model, test, processes)
        return probabilities.argmax(-1)

    costs = training_costs(model.facts) if model.facts else {}
    record = scored.measure(title, predict, module=module, seed=seed, path=path, **costs)
    if model.own_folder is not None:
        keep(model.own_folder, record, baselines, score_rows(test.pairs, probabilities))
    return record


def split_probabilities(model: Classifier, test: Split, processes: Processes = ALONE) -> np.ndarray:
    """Return probabilities of the test pairs, shape (n, 3); the processes of a launch share the work."""
    return np.array(processes.divided(test.pairs, lambda pairs: model.probabilities(pairs, progress=True)))


def score_rows(pairs: Sequence[Pair], probabilities: np.ndarray) -> list[dict[str, Any]]:
    """Return a model's answers without the sentences: ID, label, answer, and the probability of each label."""
    return [
        {"id": pair_id(pair), "label": LABELS[pair.label], "answer": LABELS[max(range(len(row)), key=row.__getitem__)]}
        | {f"probability_{label}": round(p, 6) for label, p in zip(LABELS, row, strict=True)}
        for pair, row in zip(pairs, probabilities.tolist(), strict=True)
    ]


def record_name(number: int, title: str) -> str:
    """Return the file name of a record: its row in the table, and its title."""
    return f"{stem(f'snli-{number}', title)}.json"


def sampling_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that selected a model's training pairs."""
    return {key: facts["settings"][key] for key in SAMPLING}


def check_comparable(models: Mapping[str, Classifier]) -> tuple[Path, dict[str, Any]] | None:
    """Return folder and training record of the first model that has one, after a check that all models may be compared.

    Raises:
        UserError: Models were trained on different pairs, or started from different bases.
    """
    known = {title: model.facts for title, model in models.items() if model.facts}
    first = next(iter(known.values()), None)
    for title, facts in known.items():
        if facts["data"]["fingerprint"] != first["data"]["fingerprint"]:
            problem = f"{title!r} was trained on other pairs than the first model"
            raise UserError(problem, fix="compare models trained on the same pairs")
        if (base := facts["settings"]["model_name_or_path"]) != first["settings"]["model_name_or_path"]:
            problem = f"{title!r} started from another base than the first model: {base}"
            raise UserError(problem, fix="compare models of the same base")
    return next(((model.folder, model.facts) for model in models.values() if model.facts), None)


def require_training_pairs(pairs: list[Pair], facts: dict[str, Any], corpus: CorpusArguments) -> None:
    """Refuse a corpus whose training pairs are not those that the model was trained on."""
    if pairs_fingerprint(pairs) != facts["data"]["fingerprint"]:
        raise UserError(
            "the model was trained on other pairs than those of this corpus",
            file=corpus.data_dir or corpus.dataset_name,
            fix="give the data_dir or dataset_name that it was trained on",
        )
