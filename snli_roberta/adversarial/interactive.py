"""Pairs that a person types: three probabilities as bars, and whether the answer holds when the sentences are changed a little."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys

import numpy as np

from common.cli.errors import plain
from snli_roberta.adversarial.suite.rules import EDITS, edited
from snli_roberta.data.corpus import LABELS, Pair
from snli_roberta.model.classifier import Classifier

BLOCK, DASH = "█", "-"
WIDEST = 60  # characters of a bar
NAME = max(map(len, LABELS))
LEAST = 10  # characters of a bar in the narrowest terminal


def converse(classifier: Classifier, seed: int = 0) -> None:
    """Asks for a premise and a hypothesis and shows the answer, until there is no premise or no more input.

    Whatever is typed or pasted goes to the model and back to the terminal without control characters.
    """
    for stream in (sys.stdin, sys.stdout):  # a byte or a letter that the other side does not know is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    print("A premise and a hypothesis, one after the other; an empty premise ends it.")
    with contextlib.suppress(EOFError):
        while premise := _typed("premise:    "):
            if hypothesis := _typed("hypothesis: "):
                print("\n".join(shown(classifier, (premise, hypothesis), seed)))
            else:
                print("no hypothesis: nothing was asked")
            print()
        return
    print()  # the prompt's line is still open


def shown(classifier: Classifier, pair: tuple[str, str], seed: int = 0) -> list[str]:
    """The answer to a pair as lines for a terminal, then the answers to the pair as rules change it that need no lexicon."""
    changed = {rule: edited(rule, pair, seed=seed) for rule in EDITS}
    asked = [pair, *(other for other in changed.values() if other != pair)]
    probabilities = dict(zip(asked, classifier.probabilities([Pair(*one, label=-1) for one in asked]), strict=True))
    answer = _answer(probabilities[pair])
    lines = [*bars(probabilities[pair]), f"answer: {answer}"]
    for rule, other in changed.items():
        if other == pair:
            continue
        now = _answer(probabilities[other])
        judged = {True: "right", False: "wrong", None: "same" if now == answer else "other"}[rule.passed(now, answer)]
        expected = f"expected: {rule.expected}" if rule.scored else "neither is wrong"
        lines.append(f"  {rule.name:22} {now:{NAME}} {probabilities[other].max():6.1%}  {judged}, {expected}")
    return lines


def bars(probabilities: np.ndarray) -> list[str]:
    """Three probabilities as a line each: name, number, bar; as wide as the terminal, in ASCII where it knows no blocks."""
    columns = shutil.get_terminal_size((80, 24)).columns
    width = min(WIDEST, max(LEAST, columns - NAME - 10))
    block = BLOCK if _encodable(BLOCK) else DASH
    return [
        f"{name:{NAME}} {p:6.1%} {block * round(float(p) * width)}".rstrip()
        for name, p in zip(LABELS, probabilities, strict=True)
    ]


def _answer(probabilities: np.ndarray) -> str:
    return LABELS[int(probabilities.argmax())]


def _typed(prompt: str) -> str:
    return plain(input(prompt))


def _encodable(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
