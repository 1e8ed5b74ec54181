"""A page to try classifiers on, one beside the other: ``python -m snli_roberta.app --model PATH_OR_ID …``"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import web
from common.cli.arguments import option, parse
from common.cli.console import quiet_libraries
from common.cli.errors import UserError, run
from common.models.loading import check_place, with_revision
from common.web import MODEL, PageArguments
from snli_roberta.data.corpus import LABELS, Pair

if TYPE_CHECKING:
    from snli_roberta.model.classifier import Classifier

MODULE = "snli_roberta.app"
DEMO = (Path("output/demo/snli_full"), Path("output/demo/snli_lora"))  # what `make demo` trains
LONGEST = 2_000  # characters of a sentence
MOST = 4  # models side by side
MARKS = {True: "✓ ", False: "✗ ", None: ""}
EXAMPLES = (
    ("A boy who is wet is indoors and quiet.", "A child is dry."),
    ("A man is playing a guitar on a stage.", "A man is making music."),
)
ABOUT = (
    "# Does the first sentence entail the second?\n\n"
    "**Entailment**: who believes the premise believes the hypothesis. **Contradiction**: both can't be true of one scene. "
    "**Neutral**: neither. Below the answers, the same pair changed a little, with what is right then."
)
INVENTED = "**A tiny model of the miniature.** It knows no sentences but invented ones. What it says of real ones means nothing."
LIMITS = (
    "Trained on captions of photographs, labelled by crowd workers, who often disagree. What the models say of other texts, and of "
    "pairs made to mislead them, has been measured (see the README): not as good. What you type is not kept."
)


@dataclass(kw_only=True)
class AppArguments(PageArguments):
    """Opens a page on which classifiers answer to pairs of sentences, one beside the other."""

    model: tuple[str, ...] = option(
        (), "trained models: folders or Hub ids, user/name@v1 at a revision (default: those of make demo)"
    )

    def __post_init__(self) -> None:
        if not self.model:
            self.model = tuple(str(path) for path in DEMO if path.is_dir())
        if not 1 <= len(self.model) <= MOST:
            raise UserError(
                f"{len(self.model)} models",
                key="--model",
                expected=f"1 to {MOST}",
                fix="give some, or run make demo first",
            )
        for name in self.model:
            check_place(*with_revision(name))


def checked(premise: str | None, hypothesis: str | None) -> tuple[str, str]:
    """The two sentences.

    Raises:
        UserError: One is missing, or too long.
    """
    for name, text in (("premise", premise), ("hypothesis", hypothesis)):
        if not text or not text.strip():
            raise UserError(f"no {name}", expected="a sentence")
        if len(text) > LONGEST:
            raise UserError(f"{len(text):,} characters in the {name}", expected=f"at most {LONGEST:,}")
    assert premise is not None
    assert hypothesis is not None
    return premise.strip(), hypothesis.strip()


def answers(models: dict[str, Classifier], pair: tuple[str, str]) -> list[dict[str, float]]:
    """For each model the probability of each label."""
    found = [model.probabilities([Pair(*pair, label=-1)])[0] for model in models.values()]
    return [dict(zip(LABELS, map(float, one), strict=True)) for one in found]


def variants(models: dict[str, Classifier], pair: tuple[str, str]) -> list[list[str]]:
    """A row for each rule that changes the pair: its name and what is right, each model's answer, the changed sentences.

    An answer begins with ✓ where it is right, with ✗ where it is wrong, and with neither where none is.
    """
    from snli_roberta.adversarial.suite.rules import EDITS, edited

    changed = {rule: other for rule in EDITS if (other := edited(rule, pair)) != pair}
    asked = [Pair(*one, label=-1) for one in (pair, *changed.values())]
    found = [model.probabilities(asked) for model in models.values()]
    rows = [["as it is", *(_said(one[0]) for one in found), *pair]]
    for number, (rule, other) in enumerate(changed.items(), 1):
        marks = [MARKS[rule.passed(_answer(one[number]), _answer(one[0]))] for one in found]
        said = [f"{mark}{_said(one[number])}" for mark, one in zip(marks, found, strict=True)]
        rows.append([f"{rule.name} → {rule.expected}", *said, *other])
    return rows


def _answer(probabilities: Any) -> str:
    return LABELS[int(probabilities.argmax())]


def _said(probabilities: Any) -> str:
    return f"{_answer(probabilities)} {probabilities.max():.0%}"


def as_table(models: list[str], rows: list[list[str]]) -> str:
    """Variants as HTML that fits a telephone: the sentences, which anybody may have typed, stand small below the change."""
    head = "".join(f"<th>{html.escape(one)}</th>" for one in ("change → what is right", *models))
    body = []
    for change, *said, premise, hypothesis in rows:
        pair = "<br>".join(map(html.escape, (premise or "(empty)", hypothesis)))
        cells = "".join(f"<td>{html.escape(one)}</td>" for one in said)
        body.append(f"<tr><td>{html.escape(change)}<br><small>{pair}</small></td>{cells}</tr>")
    return f'<table class="variants"><tr>{head}</tr>{"".join(body)}</table>'


def layout(models: dict[str, Classifier]) -> None:
    """The page."""
    import gradio

    gradio.Markdown(ABOUT)
    if any(one.facts and one.facts["base"]["name"].startswith("miniature/") for one in models.values()):
        gradio.Markdown(INVENTED)
    premise = gradio.Textbox(label="Premise", max_length=LONGEST, placeholder="A man is playing a guitar on a stage.")
    hypothesis = gradio.Textbox(label="Hypothesis", max_length=LONGEST, placeholder="A man is making music.")
    with gradio.Row():
        ask = gradio.Button("Ask", variant="primary")
        change = gradio.Button("Change the sentences a little")
    with gradio.Row():
        bars = [gradio.Label(label=name, elem_id=f"model-{i}") for i, name in enumerate(models)]
    table = gradio.HTML(label="The pair, changed by rule")
    gradio.Examples([list(pair) for pair in EXAMPLES], [premise, hypothesis])
    gradio.Markdown(LIMITS)

    @web.answering
    def asked(premise: str, hypothesis: str) -> dict[Any, dict[str, float]]:
        return dict(zip(bars, answers(models, checked(premise, hypothesis)), strict=True))

    @web.answering
    def changed(premise: str, hypothesis: str) -> list[Any]:
        pair = checked(premise, hypothesis)
        return [*answers(models, pair), as_table(list(models), variants(models, pair))]

    ask.click(asked, [premise, hypothesis], bars, **MODEL)
    hypothesis.submit(asked, [premise, hypothesis], bars, **MODEL)
    change.click(changed, [premise, hypothesis], [*bars, table], **MODEL)


def title_of(model: Classifier, name: str) -> str:
    """How a model heads its answer: LoRA or full fine-tuning, and its name."""
    return f"{'LoRA' if model.kind == 'adapter' else 'full fine-tuning'}: {Path(name).name if Path(name).is_dir() else name}"


def main() -> None:
    arguments = parse(
        AppArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --model output/snli_study/full output/snli_study/lora --port 8000",
    )
    web.require()
    quiet_libraries()
    from snli_roberta.model import classifier

    models = {}
    for name in arguments.model:
        model = classifier.load(*with_revision(name))
        title = title_of(model, name)
        models[title if title not in models else f"{title} ({len(models) + 1})"] = model
    web.serve("Does the first sentence entail the second?", lambda: layout(models), arguments)


if __name__ == "__main__":
    run(main)
