"""Say how far a model's labels of a file can be trusted, on one page."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from common.cli.errors import file_name
from common.cli.options import on_hub
from common.results import pictures
from common.results.finding import Finding, about, worded
from common.results.record import RunRecord, git_commit, versions
from common.results.rendering import heading, on_page, page, scores
from common.results.scoring import class_counts
from common.stats.agreement import ALIKE
from common.stats.design import Design, Draw, design_of
from common.stats.guarantee import Guarantee, guarantee
from common.stats.metrics import Measure, mean
from common.stats.votes import Votes
from common.tables.reading import read_rows, text_of
from common.tables.report import fingerprint
from common.tables.writing import row_writer
from sbic_llama.data import trained_texts
from sbic_llama.data.features import Feature, Label
from sbic_llama.data.groups import PRESENCE
from sbic_llama.data.label_files import PREFIX, labels_of, read_annotated
from sbic_llama.data.texts import TextColumns
from sbic_llama.evaluation.prevalence import prevalence_finding
from sbic_llama.evaluation.scores import label_counts, scored_set
from sbic_llama.evaluation.with_people import agreement_with_people, certainty_findings, score_of
from sbic_llama.model.description import UNTRAINED

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Adapter

TEMPLATES = Path(__file__).parent / "templates"
ELSEWHERE = ("robustness", "hatecheck", "md-agreement")  # an adapter's findings that a user's own labels can't give
LIMITS = (
    "How good the labels are on other files, or whether the people who labeled were right. The numbers hold for this file only if "
    "the labeled posts were drawn from it at random: posts that were picked for a reason represent only such posts."
)
LEAST_LABELS = 100  # human labels, and
WIDEST = 0.2  # width of the interval of the gain, for there to be enough of them
MOST_PARTS = 30  # values of a column with a guarantee of their own
MOST_TRAINED = 0.05  # share of labeled posts that were trained on, for a verdict that needs no review
LEAST_ALPHA = 0.667  # Krippendorff's lowest alpha for tentative conclusions (2004, ch. 11)

Use = Literal["use as is", "use with review", "do not use", "too few human labels to say"]


def verdict(
    gain: Measure,  # score of the model minus that of the best constant answer, paired by post
    alpha: float | None,  # Krippendorff's alpha of model and people, if known
    passed: bool | None,  # result of the Alternative Annotator Test, if known
    one_answer: bool = False,  # whether the model gives all posts of the file the same answer
    trained: int = 0,  # labeled posts that the model was trained on
) -> Use:
    """Say whether a feature's labels may be used.

    *Do not use*: the model gives one answer only, or is not shown to be better than always giving the best constant answer. *Too
    few human labels to say*: the same, but with too few labels to show it. *Use as is*: better than a constant, in reliable
    agreement with people, at least as good as a single annotator, and measured on enough new posts. *Use with
    review*: better than a constant, but one of these is not shown.
    """
    low, high = gain["ci95"]
    if one_answer:
        return "do not use"
    if low <= 0:
        return "do not use" if high < 0 or enough_labels(gain) else "too few human labels to say"
    new = trained <= MOST_TRAINED * gain["n"]
    as_is = enough_labels(gain) and new and passed and alpha is not None and alpha >= LEAST_ALPHA
    return "use as is" if as_is else "use with review"


def enough_labels(gain: Measure) -> bool:
    low, high = gain["ci95"]
    return gain["n"] >= LEAST_LABELS and high - low <= WIDEST


def labels_needed(gain: Measure) -> int:
    """Return how many human labels are enough; an interval's width falls with the root of their number."""
    low, high = gain["ci95"]
    return max(LEAST_LABELS, math.ceil(gain["n"] * ((high - low) / WIDEST) ** 2))


@dataclass(frozen=True)
class LabeledAnswers:
    """A feature's answers on the posts that people labeled, least certain first, and on the whole file."""

    feature: Feature
    labels: list[Label]  # people's
    answers: list[Label]  # the model's
    confidences: list[float]  # rising
    probabilities: np.ndarray | None  # of the labels, shape (posts, labels); None for lists of groups
    everywhere: dict[str, int]  # answer → number of posts of the whole file
    missing: int  # human labels of posts that are not in the file or not annotated
    by_key: dict[str, Label]  # key of a labeled post → the model's answer
    repeated: int  # rows with the key of an earlier row
    keys: dict[str, None]  # of the annotated posts
    certain: list[float]  # the confidence of each answer of the file
    trained: int = 0  # labeled posts whose text the adapter was trained on
    design: Design | None = None  # how the labeled posts were drawn; None for a simple draw
    # Column → its value in each labeled row and in each row of the file; the answer itself is the column "".
    parts: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)

    def guarantee(self, target: float, confidence: float) -> Guarantee:
        """Return from which confidence on its answers are those of people often enough."""
        return guarantee(self.confidences, self._right(), self.certain, target, confidence)

    def guarantees_by(self, column: str, target: float, confidence: float) -> dict[str, Guarantee]:
        """Return the same for each value of a column by itself, those with most rows first."""
        labeled, everywhere = (np.array(values) for values in self.parts[column])
        right, sure, certain = (np.array(each) for each in (self._right(), self.confidences, self.certain))
        return {
            value: guarantee(
                sure[labeled == value], right[labeled == value], certain[everywhere == value], target, confidence
            )
            for value, _ in Counter(everywhere.tolist()).most_common(MOST_PARTS)
        }

    def _right(self) -> list[bool]:
        return [answer == label for answer, label in zip(self.answers, self.labels, strict=True)]

    def constant(self) -> tuple[Label, list[float]]:
        """Return the best constant answer and its score on each post."""
        score = score_of(self.feature)
        by_answer = {answer: [score(label, answer) for label in self.labels] for answer in dict.fromkeys(self.labels)}
        weights = self.design and self.design.weights
        best = max(by_answer, key=lambda answer: np.average(by_answer[answer], weights=weights))
        return best, by_answer[best]

    def gain(self, seed: int) -> Measure:
        """Return the mean score minus that of the best constant answer, paired by post.

        A handful of posts on which the two differ may all speak for the model by chance, so artificial ones join them.
        """
        own = [score_of(self.feature)(*pair) for pair in zip(self.labels, self.answers, strict=True)]
        n = len(own)
        design = self.design or Design(np.zeros(n, dtype=int), np.array([float(n)]))
        return mean(np.subtract(own, self.constant()[1]), seed, design, ends=(-1, 1))


def judge(
    adapter: Adapter,
    annotated: Path,
    human_labels: dict[str, Label],
    *,
    key: str,
    texts: TextColumns,
    prefix: str = PREFIX,
    drawn: Draw | None = None,
    by: Sequence[str] = (),
) -> LabeledAnswers:
    """Join a feature's answers with people's labels by the key column.

    ``drawn`` is None for a simple draw; ``by`` are columns whose values are kept.
    """
    feature, left = adapter.feature, dict(human_labels)
    rows: list[tuple[float, Label, Label, list[float], str, list[str]]] = []
    everywhere: Counter[str] = Counter()
    by_key: dict[str, Label] = {}
    keys: dict[str, None] = {}
    repeated, trained, certain, values_of = 0, 0, [], []
    trained_on = trained_texts.read(adapter.folder)
    for row in read_rows(annotated):
        values = _answer_in(row.values, adapter, prefix)
        if values[feature.name] is None:
            continue
        everywhere[values[feature.name]] += 1
        certain.append(adapter.confidence(values))
        values_of.append([values[feature.name], *(text_of(row, column) or "" for column in by)])
        if (name := text_of(row, key)) is None:
            continue
        repeated += name in keys
        keys[name] = None
        if (human := left.pop(name, None)) is not None:
            answer = feature.parse(values[feature.name])
            by_key[name] = () if answer is None else answer
            cells = {column: text_of(row, column) or "" for column in texts.columns} if trained_on else {}
            trained += bool(cells) and trained_texts.digest(texts.read(cells)) in trained_on
            numbers = [float(values[column]) for column in adapter.columns[1:]]
            rows.append((adapter.confidence(values), human, by_key[name], numbers, name, values_of[-1]))
    rows.sort(key=lambda row: row[0])
    confidences, labels, answers, numbers, names, of_labeled = ([row[column] for row in rows] for column in range(6))
    probabilities = np.array(numbers) if feature.classifies else None
    counts, missing = dict(everywhere.most_common()), len(left)
    own = (labels, answers, confidences, probabilities)
    design = design_of({name: drawn[name] for name in keys if name in drawn}, names) if drawn else None
    parts = {
        column: ([values[place] for values in of_labeled], [values[place] for values in values_of])
        for place, column in enumerate(("", *by))
    }
    return LabeledAnswers(feature, *own, counts, missing, by_key, repeated, keys, certain, trained, design, parts)


def _answer_in(values: dict[str, Any], adapter: Adapter, prefix: str) -> dict[str, Any]:
    return {name: values[f"{prefix}{name}"] for name in adapter.columns}


def _draw(design: Design | None) -> dict[str, Any]:
    """Return how the labeled posts were drawn, for a record, as far as their file says so."""
    if design is None:
        return {}
    chances = sorted({count / size for count, size in zip(design.counts, design.sizes, strict=True)})
    return {
        "draw": f"with probabilities from {chances[0]:.3f} to {chances[-1]:.3f} in {len(design.sizes)} strata",
        "effective sample size": round(design.effective()),
    }


def record_of(judged: LabeledAnswers, source: Path, module: str, seed: int, *, miniature: bool = False) -> RunRecord:
    """Score the answers against people's labels, as a run record."""
    feature = judged.feature
    counts = (
        label_counts(feature, judged.labels)
        if feature.branches
        else class_counts([min(len(label), 1) for label in judged.labels], PRESENCE)
    )
    return scored_set(
        feature,
        task=feature.title,
        question=feature.question,
        limits=LIMITS,
        data=called(source),
        split="posts with human labels",
        labels=judged.labels,
        fingerprint=fingerprint([label, answer] for label, answer in zip(judged.labels, judged.answers, strict=True)),
        class_counts={"human labels": counts},
        reports=[],
        policy=_draw(judged.design),
        miniature=miniature,
        design=judged.design,
    ).record("model", judged.answers, module=module, seed=seed)


def called(source: Path) -> str:
    """Return what a page and records call a file: its name or, of a copy from the Hub, the dataset with its commit."""
    name = file_name(source)
    return name if on_hub(name) else source.name


@dataclass(frozen=True)
class Assessment:
    """A feature's scores, findings and verdict."""

    judged: LabeledAnswers
    record: RunRecord
    findings: list[Finding]
    use: Use
    why: str
    notes: list[str]  # on the human labels
    guarantee: Guarantee | None = None  # if one was asked for
    guarantees: dict[str, dict[str, Guarantee]] = field(
        default_factory=dict
    )  # column → value → its own; "": the answer

    def guaranteed(self) -> str:
        """Return the guarantee as a sentence."""
        words = worded(TEMPLATES / "guarantee.jinja", found=self.guarantee, rows=len(self.judged.certain))
        return " ".join(words["summary"])


def assess(
    judged: LabeledAnswers,
    record: RunRecord,
    annotated: Path,
    votes: Votes,
    *,
    key: str,
    prefix: str = PREFIX,
    temperature: float,
    seed: int,
    drawn: Draw | None = None,
) -> Assessment:
    """Compare a feature's answers with people's labels, and decide whether they may be used."""
    shared = {**about(record), "seed": seed}
    compared = (judged.labels, judged.answers, judged.confidences)
    certainty = {"probabilities": judged.probabilities, "temperature": temperature, "design": judged.design}
    findings = certainty_findings(judged.feature, *compared, **certainty, **shared)
    opinions = votes.labels if votes.named else {}
    agreement = agreement_with_people(judged.feature, opinions, judged.by_key, drawn=drawn, **shared)
    findings += [agreement] if agreement else []
    if not judged.repeated:
        where = {name: value for name, value in about(record).items() if name != "data"}
        answers = read_annotated(annotated, judged.feature, key=key, prefix=prefix)
        human_labels = labels_of(votes, judged.feature)
        findings.append(prevalence_finding(answers, human_labels, source=record.data["name"], drawn=drawn, **where))
    alpha = agreement and agreement.facts["coefficients"].get("Krippendorff's alpha", {}).get(ALIKE)
    test = agreement and agreement.facts["alternative_annotator_test"]
    gain, metric = judged.gain(seed), scores(record)[0]
    only = next(iter(judged.everywhere)) if len(judged.everywhere) == 1 else None
    use = verdict(gain, alpha and alpha["value"], test and test["passed"], only is not None, judged.trained)
    words = worded(
        TEMPLATES / "verdict.jinja",
        use=use,
        only=only,
        trained=judged.trained,
        metric=heading(metric),
        score=record.metrics[metric],
        gain=gain,
        constant=judged.feature.answer(judged.constant()[0]),
        alpha=alpha,
        least_alpha=LEAST_ALPHA,
        widest=WIDEST,
        test=test,
        enough=enough_labels(gain),
        needed=labels_needed(gain),
    )
    return Assessment(judged, record, findings, use, " ".join(words["summary"]), votes.notes())


def write_review(
    annotated: Path,
    adapters: Sequence[Adapter],
    human_labels: dict[str, dict[str, Any]],  # feature → key of a labeled post → labels
    path: Path,
    *,
    key: str,
    prefix: str = PREFIX,
    texts: TextColumns,
    count: int,
    thresholds: Mapping[str, float] | None = None,
) -> int:
    """Write rows that nobody has labeled yet, least certain first. Returns how many.

    These are the ``count`` least certain ones or, with ``thresholds``, all with an answer that is below its feature's threshold.
    """

    def waiting() -> Iterator[tuple[float, int, dict[str, Any]]]:
        for row in read_rows(annotated):
            if all((text_of(row, key) or "") in labels for labels in human_labels.values()):
                continue
            answers = [(adapter, _answer_in(row.values, adapter, prefix)) for adapter in adapters]
            confidences = {a.name: a.confidence(values) if values[a.name] is not None else 0.0 for a, values in answers}
            if thresholds and all(sure >= thresholds[name] for name, sure in confidences.items()):
                continue
            if not all((text_of(row, column) or "").strip() for column in texts.columns):
                continue  # there is nothing to label
            yield min(confidences.values()), row.number, row.values

    rows = waiting()
    chosen = sorted(rows, key=lambda row: row[:2]) if thresholds else heapq.nsmallest(count, rows, lambda row: row[:2])
    columns = list(chosen[0][2]) if chosen else [key]
    place, certainty = (_unused(name, columns) for name in ("model_row", "model_confidence"))
    with row_writer(path, [place, certainty, *columns]) as write:
        for confidence, number, values in chosen:
            write({place: number, certainty: round(confidence, 6), **values})
    return len(chosen)


def _unused(name: str, columns: Sequence[str]) -> str:
    while name in columns:
        name += "_"
    return name


def render(assessed: Sequence[Assessment], adapters: Sequence[Adapter], source: Path, **values: Any) -> str:
    """Render the page; ``values`` are further ones of ``trust.html.jinja``."""
    return page(
        TEMPLATES / "trust.html.jinja",
        title=f"Can you trust the labels on {called(source)}?",
        source=called(source),
        features=assessed,
        pictures=pictures,
        on_page=on_page,
        scores=scores,
        heading=heading,
        limits=LIMITS,
        least_labels=LEAST_LABELS,
        widest=WIDEST,
        least_alpha=LEAST_ALPHA,
        most_trained=MOST_TRAINED,
        trained_on=sorted({adapter.description.corpus for adapter in adapters} - {UNTRAINED}),
        untrained=any(adapter.description.corpus == UNTRAINED for adapter in adapters),
        miniature=any(adapter.description.of_miniature for adapter in adapters),
        commit=git_commit(),
        versions=versions(),
        **values,
    )
