"""Open a page to try classifiers side by side: ``python -m snli_roberta.app --model PATH_OR_ID …``."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import web
from common.cli.arguments import option, parse
from common.cli.console import quiet_libraries
from common.cli.errors import UserError, run
from common.cli.extras import require
from common.models.loading import check_place, with_revision
from common.runtime.project import MINIATURE
from common.web import MODEL, PageArguments
from snli_roberta.adversarial.suite import EDITS, edited
from snli_roberta.data.corpus import LABELS, Pair
from snli_roberta.model import classifier
from snli_roberta.model.classifier import SIDE_BY_SIDE, Classifier

MODULE = "snli_roberta.app"
DEMO = (Path("output/demo/snli_full"), Path("output/demo/snli_lora"))  # what `make demo` trains
LONGEST = 2_000  # characters of a sentence
MARKS = {True: "✓ ", False: "✗ ", None: ""}
EXAMPLES = (
    ("A boy who is wet is indoors and quiet.", "A child is dry."),
    ("A man is playing a guitar on a stage.", "A man is making music."),
)
TITLE = "Does the first sentence entail the second?"
ABOUT = (
    f"# {TITLE}\n\n"
    "**Entailment**: if the premise is true, so is the hypothesis. **Contradiction**: both cannot be true of one scene. "
    "**Neutral**: neither. Below the answers you can see the same pair with small changes, and the right answers to them."
)
INVENTED = (
    "**A tiny model trained on the miniature.** It knows invented sentences only; its answers to others mean nothing."
)
LIMITS = (
    "Trained on captions of photographs, labeled by crowd workers, who often disagree. On other texts, and on pairs made to "
    "mislead them, these models do worse (see the README for measurements). What you type is not stored."
)


@dataclass(kw_only=True)
class AppArguments(PageArguments):
    """Open a page on which classifiers answer pairs of sentences side by side."""

    model: tuple[str, ...] = option(
        (), "trained models: folders or Hub IDs, user/name@v1 at a revision (default: those of make demo)"
    )

    def __post_init__(self) -> None:
        if not self.model:
            self.model = tuple(str(path) for path in DEMO if path.is_dir())
        if not 1 <= len(self.model) <= SIDE_BY_SIDE:
            problem = f"{len(self.model)} models"
            raise UserError(
                problem, key="--model", expected=f"1 to {SIDE_BY_SIDE}", fix="name some, or run make demo first"
            )
        for name in self.model:
            check_place(*with_revision(name))


def checked(premise: str | None, hypothesis: str | None) -> tuple[str, str]:
    """Return the two sentences; refuse a missing or very long one."""
    for name, text in (("premise", premise), ("hypothesis", hypothesis)):
        if not text or not text.strip():
            raise UserError(f"no {name}", expected="a sentence")
        if len(text) > LONGEST:
            raise UserError(f"{len(text):,} characters in the {name}", expected=f"at most {LONGEST:,}")
    return str(premise).strip(), str(hypothesis).strip()


def answers(models: dict[str, Classifier], pair: tuple[str, str]) -> list[dict[str, float]]:
    """Return the probability of each label, for each model."""
    rows = [model.probabilities([Pair(*pair, label=-1)])[0] for model in models.values()]
    return [dict(zip(LABELS, map(float, row), strict=True)) for row in rows]


def variants(models: dict[str, Classifier], pair: tuple[str, str]) -> list[list[str]]:
    """Return a row for each rule that changes the pair: name and right answer, each model's answer, the sentences.

    An answer starts with ✓ if it is right, with ✗ if it is wrong, and with neither if no answer is wrong.
    """
    changed = {rule: other for rule in EDITS if (other := edited(rule, pair)) != pair}
    pairs = [Pair(*sentences, label=-1) for sentences in (pair, *changed.values())]
    by_model = [model.probabilities(pairs) for model in models.values()]
    rows = [["as it is", *(_shown(probabilities[0]) for probabilities in by_model), *pair]]
    for number, (rule, other) in enumerate(changed.items(), 1):
        cells = []
        for probabilities in by_model:
            mark = MARKS[rule.passed(_answer(probabilities[number]), _answer(probabilities[0]))]
            cells.append(f"{mark}{_shown(probabilities[number])}")
        rows.append([f"{rule.name} → {rule.expected}", *cells, *other])
    return rows


def _answer(probabilities: Any) -> str:
    return LABELS[int(probabilities.argmax())]


def _shown(probabilities: Any) -> str:
    return f"{_answer(probabilities)} {probabilities.max():.0%}"


def as_table(models: list[str], rows: list[list[str]]) -> str:
    """Render variants as HTML that fits a phone, with the sentences (typed by anybody, so escaped) below the change."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ("change → right answer", *models))
    body = []
    for change, *cells, premise, hypothesis in rows:
        pair = "<br>".join(map(html.escape, (premise or "(empty)", hypothesis)))
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        body.append(f"<tr><td>{html.escape(change)}<br><small>{pair}</small></td>{row}</tr>")
    return f'<table class="variants"><tr>{head}</tr>{"".join(body)}</table>'


def layout(models: dict[str, Classifier]) -> None:
    import gradio

    gradio.Markdown(ABOUT)
    if any(model.facts and model.facts["base"]["name"].startswith(MINIATURE) for model in models.values()):
        gradio.Markdown(INVENTED)
    premise = gradio.Textbox(label="Premise", max_length=LONGEST, placeholder="A man is playing a guitar on a stage.")
    hypothesis = gradio.Textbox(label="Hypothesis", max_length=LONGEST, placeholder="A man is making music.")
    with gradio.Row():
        ask = gradio.Button("Ask", variant="primary")
        change = gradio.Button("Change the sentences slightly")
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
    """Return a model's heading: its method and its name."""
    method = "LoRA" if model.kind == "adapter" else "full fine-tuning"
    return f"{method}: {Path(name).name if Path(name).is_dir() else name}"


def main() -> None:
    arguments = parse(
        AppArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --model output/snli_study/full output/snli_study/lora --port 8000",
    )
    require("app")
    quiet_libraries()
    models: dict[str, Classifier] = {}
    for name in arguments.model:
        model = classifier.load(*with_revision(name))
        title = title_of(model, name)
        models[title if title not in models else f"{title} ({len(models) + 1})"] = model
    web.serve(TITLE, lambda: layout(models), arguments)


if __name__ == "__main__":
    run(main)
