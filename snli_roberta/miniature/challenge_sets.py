"""ChaosNLI, HANS and Breaking NLI in miniature, in their exact upstream formats.

ChaosNLI (Nie, Zhou and Bansal 2020): a hundred labels for each pair that a bare majority of five agreed on.
HANS (McCoy, Pavlick and Linzen 2019): every word of a hypothesis occurs in its premise, but only half of the hypotheses
follow. Subcases have the names of their upstream models. Two subjects in a sentence, and words such as "beside" and
"or", are new to a model that was trained on the SNLI miniature; that is intended.
Breaking NLI (Glockner, Shwartz and Goldberg 2018): the hypothesis is the premise with one fact replaced by its antonym
(contradiction), its synonym (entailment), or an unrelated fact (neutral). Most pairs are contradictions.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snli_roberta.adversarial.scenes import FACTS, SUBJECTS, draw_premise, words_of
from snli_roberta.data.corpus import LABELS
from snli_roberta.miniature import snli

AGREED = 3  # of five annotators, on the pairs that are in ChaosNLI
PEOPLE = 100
HANS_COLUMNS = (
    *("gold_label", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse"),
    *("sentence1", "sentence2", "pairID", "heuristic", "subcase", "template"),
)
CASES = 20  # per subcase of HANS
NOT_BESIDE = {"alone", "accompanied"}  # may or may not follow from being beside somebody
# Heuristic -> subcase -> premise and hypothesis: {a} and {b} are subjects, {f}, {g} and {h} facts from different
# antonym pairs. The second letter of a subcase says whether the hypothesis is entailed.
TEMPLATES = {
    "lexical_overlap": {
        "ln_preposition": ("The {f} {a} is beside the {b} .", "The {b} is {f} ."),
        "ln_conjunction": ("The {a} is {f} and the {b} is {g} .", "The {b} is {f} ."),
        "le_conjunction": ("The {a} is {f} , {g} and {h} .", "The {a} is {h} ."),
        "le_relative_clause": ("The {a} who is {f} is {g} and {h} .", "The {a} is {h} ."),
    },
    "subsequence": {
        "sn_PP_on_subject": ("The {a} beside the {b} is {f} and {g} .", "The {b} is {f} ."),
        "sn_relative_clause_on_subject": ("The {a} that is beside the {b} is {f} .", "The {b} is {f} ."),
        "se_conjunction": ("The {a} is {f} and {g} .", "The {a} is {f} ."),
        "se_PP_on_obj": ("The {a} is {f} beside the {b} .", "The {a} is {f} ."),
    },
    "constituent": {
        "cn_disjunction": ("The {a} is {f} , or the {b} is {g} .", "The {a} is {f} ."),
        "cn_embedded_under_if": ("If the {a} is {f} , the {b} is {g} .", "The {a} is {f} ."),
        "ce_conjunction": ("The {a} is {f} , and the {b} is {g} .", "The {b} is {g} ."),
        "ce_embedded_under_since": ("Since the {a} is {f} , the {b} is {g} .", "The {a} is {f} ."),
    },
}
ANTONYMS, SYNONYMS, UNRELATED = 20, 60, 20  # pairs per category of Breaking NLI
ANNOTATORS = 3


def draw_chaosnli(seed: int) -> list[dict[str, Any]]:
    """Draw the rows of ``chaosNLI_snli.jsonl``, in the order of the test pairs."""
    rng = random.Random(f"chaosnli {seed}")
    rows = snli.pairs("test", seed)
    return [_chaos_item(rng, row) for row in rows if row["annotator_labels"].count(row["gold_label"]) == AGREED]


def _chaos_item(rng: random.Random, row: dict[str, Any]) -> dict[str, Any]:
    meant = author(row)
    labels = [label for _ in range(PEOPLE // 5) for label in snli.opinions(rng, meant)]
    # Upstream names a label by its first letter, and the counter has no zeros.
    counter = Counter(label[0] for label in labels)
    counts = [counter[name[0]] for name in LABELS]
    shares = [count / PEOPLE for count in counts]
    return {
        "uid": row["pairID"],
        "label_counter": dict(counter.most_common()),
        "majority_label": counter.most_common(1)[0][0],
        "label_dist": shares,
        "label_count": counts,
        "entropy": sum(-share * math.log2(share) for share in shares if share),
        "example": {"uid": row["pairID"], "premise": row["sentence1"], "hypothesis": row["sentence2"]}
        | {"source": f"snli_agree_{AGREED}"},
        "old_label": row["gold_label"][0],
        "old_labels": row["annotator_labels"],
    }


def author(row: dict[str, Any]) -> str | None:
    """Return the label that a pair was made for (its ID ends in it); None if its hypothesis is a matter of opinion."""
    if any(word in snli.VAGUE for word in words_of(row["sentence2"])):
        return None
    return next(label for label in LABELS if label[0] == row["pairID"][-1])


def draw_hans(seed: int) -> list[dict[str, str]]:
    """Draw the rows of ``heuristics_evaluation_set.txt``; no pair occurs twice."""
    rng = random.Random(f"hans {seed}")
    pairs = [pair for pair, sides in enumerate(FACTS) if not {*sides[0], *sides[1]} & NOT_BESIDE]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for heuristic, subcases in TEMPLATES.items():
        for number, (subcase, template) in enumerate(subcases.items(), 1):
            wanted = len(rows) + CASES
            while len(rows) < wanted:
                a, b = rng.sample(list(SUBJECTS), 2)
                facts = [rng.choice(FACTS[pair][rng.randrange(2)]) for pair in rng.sample(pairs, 3)]
                words = {"a": a, "b": b} | dict(zip("fgh", facts, strict=True))
                premise, hypothesis = (sentence.format(**words) for sentence in template)
                row = {
                    "gold_label": "entailment" if subcase[1] == "e" else "non-entailment",
                    "sentence1_binary_parse": snli.binary_parse(premise),
                    "sentence2_binary_parse": snli.binary_parse(hypothesis),
                    "sentence1_parse": snli.flat_parse(premise),
                    "sentence2_parse": snli.flat_parse(hypothesis),
                    "sentence1": premise,
                    "sentence2": hypothesis,
                    "pairID": f"ex{len(rows)}",
                    "heuristic": heuristic,
                    "subcase": subcase,
                    "template": f"temp{number}",
                }
                rows.setdefault((premise, hypothesis), row)
    return list(rows.values())


def draw_breaking_nli(seed: int) -> list[dict[str, Any]]:
    """Draw the rows of ``dataset.jsonl``; no pair occurs twice."""
    rng = random.Random(f"breaking nli {seed}")
    seen: set[tuple[str, str]] = set()
    rows: list[dict[str, Any]] = []
    for category, label, number, count in _categories():
        wanted = len(rows) + count
        while len(rows) < wanted:
            premise, _, facts = draw_premise(rng)
            replaced = _replaced(rng, premise, facts, label, number)
            if replaced is None or (premise, replaced) in seen:
                continue
            seen.add((premise, replaced))
            labels = [label] * ANNOTATORS
            if rng.random() < snli.SLIP * ANNOTATORS:  # the gold label remains the majority's
                labels[rng.randrange(ANNOTATORS)] = rng.choice([name for name in LABELS if name != label])
            row = {"sentence1": premise, "category": category, "gold_label": label, "annotator_labels": labels}
            rows.append(row | {"pairID": len(rows), "sentence2": replaced})
    return rows


def _categories() -> Iterator[tuple[str, str, int | None, int]]:
    """Yield category, label, its antonym pair (if any), and its number of sentence pairs."""
    for number, (side, other) in enumerate(FACTS):
        yield f"{side[0]}_{other[0]}", "contradiction", number, ANTONYMS
    yield "synonyms", "entailment", None, SYNONYMS
    yield "unrelated", "neutral", None, UNRELATED


def _replaced(rng: random.Random, premise: str, facts: dict[int, int], label: str, number: int | None) -> str | None:
    """Replace one fact so that the result has relation ``label`` to the premise; None if that is impossible."""
    pair = rng.choice(list(facts)) if number is None else number
    if pair not in facts:
        return None
    words = premise.rstrip(".").replace(",", " ").split()
    word = next(word for word in FACTS[pair][facts[pair]] if word in words)
    if label == "neutral":
        other = rng.choice([pair for pair in range(len(FACTS)) if pair not in facts])
        choices = list(FACTS[other][rng.randrange(2)])
    else:
        choices = list(FACTS[pair][facts[pair] if label == "entailment" else 1 - facts[pair]])
    choices = [choice for choice in choices if choice != word]
    return premise.replace(f" {word}", f" {rng.choice(choices)}") if choices else None


def write_chaosnli(folder: Path, seed: int) -> None:
    _write_lines(folder / "chaosNLI_snli.jsonl", draw_chaosnli(seed))


def write_hans(folder: Path, seed: int) -> None:
    with open(folder / "heuristics_evaluation_set.txt", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HANS_COLUMNS, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writeheader()
        writer.writerows(draw_hans(seed))


def write_breaking_nli(folder: Path, seed: int) -> None:
    _write_lines(folder / "dataset.jsonl", draw_breaking_nli(seed))


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
