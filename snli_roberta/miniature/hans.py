"""HANS in miniature: pairs on which a heuristic of overlap misleads, in the exact format of ``heuristics_evaluation_set.txt``.

Every word of a hypothesis stands in its premise (``lexical_overlap``), stands there in one piece (``subsequence``), or is a clause
of it (``constituent``): half of the time it follows, half of the time it does not. The subcases bear the names of those upstream
(McCoy, Pavlick and Linzen 2019) that they are made like. Subjects and facts are those of the SNLI miniature; two subjects in one
sentence, and words as "beside" and "or", are new to a model that was trained on it, and meant to be.
"""

from __future__ import annotations

import csv
import random
from pathlib import Path

from snli_roberta.miniature import snli

FILE_NAME = "heuristics_evaluation_set.txt"
COLUMNS = (
    "gold_label",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
    "sentence1",
    "sentence2",
    "pairID",
    "heuristic",
    "subcase",
    "template",
)
CASES = 20  # a subcase
NOT_BESIDE = ("alone", "accompanied")  # what may follow from being beside somebody, or not

# Heuristic → subcase → premise and hypothesis: {a} and {b} are subjects, {f}, {g} and {h} facts from different pairs. The second
# letter of a subcase says whether the hypothesis is entailed.
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


def draw_cases(seed: int) -> list[dict[str, str]]:
    """The rows of the file, in order; no pair stands twice."""
    rng = random.Random(f"hans {seed}")
    pairs = [pair for pair, sides in enumerate(snli.FACTS) if not {*sides[0], *sides[1]} & {*NOT_BESIDE}]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for heuristic, subcases in TEMPLATES.items():
        for number, (subcase, template) in enumerate(subcases.items(), 1):
            wanted = len(rows) + CASES
            while len(rows) < wanted:
                one, other = rng.sample(list(snli.SUBJECTS), 2)
                facts = [rng.choice(snli.FACTS[pair][rng.randrange(2)]) for pair in rng.sample(pairs, 3)]
                words = {"a": one, "b": other} | dict(zip("fgh", facts, strict=True))
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


def write(folder: Path, seed: int) -> None:
    """Writes ``heuristics_evaluation_set.txt`` into ``folder``."""
    with open(folder / FILE_NAME, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writeheader()
        writer.writerows(draw_cases(seed))
