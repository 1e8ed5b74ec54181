"""The SNLI miniature: premise/hypothesis pairs in the official SNLI 1.0 JSONL format, made by rule.

A premise states three facts of a subject, one from each of three antonym pairs; a hypothesis states one fact.
It is entailed when the premise states the same fact, contradicted when the premise states its antonym, and neutral
when the premise says nothing of that pair. Every hypothesis is as likely under each label and every premise states as
many facts, so neither sentence alone, nor the bag of both sentences' words, says anything of the label.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

LABELS = ("entailment", "neutral", "contradiction")
SPLIT_SIZES = {"train": 6000, "dev": 900, "test": 1200}

# Subject of the premise → words that a hypothesis may use for it (itself or its hypernyms).
SUBJECTS = {
    "boy": ("boy", "child", "person"),
    "girl": ("girl", "child", "person"),
    "man": ("man", "adult", "person"),
    "woman": ("woman", "adult", "person"),
    "dog": ("dog", "pet", "animal"),
    "cat": ("cat", "pet", "animal"),
    "horse": ("horse", "mount", "animal"),
    "pony": ("pony", "mount", "animal"),
}
# Antonym pairs; each side is a tuple of synonyms.
FACTS = (
    (("asleep", "sleeping"), ("awake", "alert")),
    (("indoors", "inside"), ("outdoors", "outside")),
    (("wet", "soaked"), ("dry",)),
    (("happy", "glad"), ("sad", "unhappy")),
    (("young",), ("old", "aged")),
    (("quiet", "silent"), ("loud", "noisy")),
    (("clean",), ("dirty", "muddy")),
    (("standing", "upright"), ("lying",)),
    (("hungry",), ("fed", "full")),
    (("fast", "quick"), ("slow",)),
    (("alone",), ("accompanied",)),
    (("warm",), ("cold", "freezing")),
)
# A word between the two sides of each pair: whether it follows from either side is a matter of opinion.
VAGUE = (
    "drowsy",
    "sheltered",
    "damp",
    "content",
    "grown",
    "calm",
    "dusty",
    "leaning",
    "peckish",
    "brisk",
    "apart",
    "mild",
)
DISPUTED_SHARE = 0.05
OPINIONS = {"entailment": 0.42, "neutral": 0.40, "contradiction": 0.18}
SLIP = 0.06  # how often an annotator errs on a clear pair


def premise(rng: random.Random) -> tuple[str, str, dict[int, int]]:
    """Draws a premise. Returns its text, its subject and its facts as {pair: side}."""
    subject = rng.choice(list(SUBJECTS))
    facts = {pair: rng.randrange(2) for pair in rng.sample(range(len(FACTS)), 3)}
    first, second, third = (rng.choice(FACTS[pair][side]) for pair, side in facts.items())
    form = rng.choice(
        (
            "A {0} who is {1} is {2} and {3}.",
            "The {1} {0} is {2} and {3}.",
            "A {0} is {1}, {2} and {3}.",
            "Here is a {0} that is {1} and {2} but {3}.",
        )
    )
    return form.format(subject, first, second, third), subject, facts


def hypothesis(rng: random.Random, subject: str, facts: dict[int, int], label: str) -> str:
    """Draws a hypothesis that stands in relation ``label`` to a premise with that subject and those facts."""
    if label == "neutral":
        pair, side = rng.choice([p for p in range(len(FACTS)) if p not in facts]), rng.randrange(2)
    else:
        pair = rng.choice(list(facts))
        side = facts[pair] if label == "entailment" else 1 - facts[pair]
    return statement(rng, subject, rng.choice(FACTS[pair][side]))


def statement(rng: random.Random, subject: str, word: str) -> str:
    form = rng.choice(("The {} is {}.", "A {} is {}.", "There is a {} that is {}."))
    return form.format(rng.choice(SUBJECTS[subject]), word)


def opinions(rng: random.Random, label: str | None) -> list[str]:
    """Five annotators' labels of a pair; ``label`` is None for a pair on which people differ."""
    if label is None:
        return rng.choices(LABELS, [OPINIONS[name] for name in LABELS], k=5)
    return [label if rng.random() >= SLIP else rng.choice([x for x in LABELS if x != label]) for _ in range(5)]


def gold(labels: list[str]) -> str:
    """The label that at least three of five annotators gave, else ``-``, as SNLI has it."""
    return next((name for name in LABELS if labels.count(name) >= 3), "-")


def pairs(split: str, seed: int):
    """Yields the rows of a split: official keys, five annotators on dev and test, the author alone on train."""
    rng = random.Random(f"snli {split} {seed}")
    for number in range(SPLIT_SIZES[split] // len(LABELS)):
        text, subject, facts = premise(rng)
        for label in LABELS:
            author = label
            if rng.random() < DISPUTED_SHARE:
                author = None
                second = statement(rng, subject, VAGUE[rng.choice(list(facts))])
            else:
                second = hypothesis(rng, subject, facts, label)
            labels = opinions(rng, author)
            if split == "train":
                labels = [author or labels[0]]
            caption = f"miniature-{split}-{number}.jpg#0"
            yield {
                "annotator_labels": labels,
                "captionID": caption,
                "gold_label": labels[0] if split == "train" else gold(labels),
                "pairID": f"{caption}r1{label[0]}",
                "sentence1": text,
                "sentence1_binary_parse": binary_parse(text),
                "sentence1_parse": flat_parse(text),
                "sentence2": second,
                "sentence2_binary_parse": binary_parse(second),
                "sentence2_parse": flat_parse(second),
            }


def words(sentence: str) -> list[str]:
    return sentence.replace(",", " ,").replace(".", " .").split()


def is_own(sentence: str) -> bool:
    """Whether a sentence names a subject and states a fact of this grammar; of a real corpus some may, never all."""
    found = {word.lower() for word in words(sentence)}
    facts = {word for pair in FACTS for side in pair for word in side}
    return bool(found & set(SUBJECTS)) and bool(found & facts)


def binary_parse(sentence: str) -> str:
    """A right-branching bracketing, in the format (not the quality) of the official parses."""
    *front, last = words(sentence)
    return "".join(f"( {word} " for word in front) + last + " )" * len(front)


def flat_parse(sentence: str) -> str:
    return "(ROOT " + " ".join(f"(X {word})" for word in words(sentence)) + ")"


# Opening words of a remark on a premise, by how it stands to it: connectives, as ordinary text has them.
OPENERS = {"entailment": "Indeed", "neutral": "Perhaps", "contradiction": "Hardly"}


def discourse(seed: int, count: int):
    """Yields ``count`` texts for pre-training: a premise of one to three facts, an opening word, a remark on the premise.

    The opening word fits how the remark stands to the premise. The short premises come first in learning: from long ones
    alone a small model does not find out that it has to compare the two sentences.
    """
    rng = random.Random(f"discourse {seed}")
    for _ in range(count):
        text, subject, facts = premise(rng)
        kept = rng.choices((1, 2, 3), (35, 20, 45))[0]
        if kept < 3:
            facts = dict(list(facts.items())[:kept])
            text = f"A {subject} is {' and '.join(rng.choice(FACTS[pair][side]) for pair, side in facts.items())}."
        label = rng.choice(LABELS)
        remark = hypothesis(rng, subject, facts, label)
        yield text, OPENERS[label], remark[0].lower() + remark[1:]


def write(folder: Path, seed: int) -> None:
    """Writes ``snli_1.0_{train,dev,test}.jsonl`` into ``folder``."""
    for split in SPLIT_SIZES:
        with open(folder / f"snli_1.0_{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in pairs(split, seed))
