"""Try adapters in a browser, on a post or a file: ``python -m sbic_llama.app --adapter PATH_OR_ID``"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import web
from common.cli.arguments import option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, counted, run
from common.cli.extras import require
from common.models.loading import check_place, with_revision
from common.tables.reading import FORMATS, columns_of, read_rows
from common.web import MODEL, PageArguments
from sbic_llama.annotation.input import Part, RowFormat, annotated, survey, windows
from sbic_llama.annotation.parts import AnnotationJob, new_columns, review_thresholds
from sbic_llama.data.corpus import is_blank
from sbic_llama.data.texts import TextColumns

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Annotator

MODULE = "sbic_llama.app"
DEMO = Path("output/demo/sbic")  # adapters that `make demo` trains
PREFIX = "model_"
PREVIEW = 20  # rows of an annotated file that the page shows
MOST_EXAMPLES = 3  # of a codebook
LONGEST = 10_000  # characters of a typed post
TITLE = "What would annotators say about a post?"
EXAMPLES = ("the florbs by the river sing well", "what a quiet day")  # about the miniature's invented groups
WARNING = (
    "**Content warning.** The corpus behind these models consists of offensive posts, and some answers name groups that a post "
    "targets. The labels are opinions of crowd workers, and the model repeats their mistakes. Do not use it to judge, monitor or "
    "punish people."
)
OWN_WARNING = (
    "**Labels are predictions** of what the people who labeled the codebook's table would say, and the model repeats their "
    "mistakes. Do not use it to judge, monitor or punish people."
)
INVENTED = (
    "**Adapters of the miniature.** They were trained on invented posts. Their answers about real ones mean nothing."
)
PRIVACY = (
    "No data leaves the machine that serves this page. An uploaded file and its annotation stay in a temporary folder for ten "
    "minutes."
)


@dataclass(kw_only=True)
class AppArguments(PageArguments):
    """Open a page on which adapters annotate a post or a file."""

    adapter: tuple[str, ...] = option(
        (),
        "adapters for different features: folders or Hub ids, user/name@v1 for a revision (default: those of make demo)",
    )

    def __post_init__(self) -> None:
        if not self.adapter:
            self.adapter = tuple(str(path.parent) for path in sorted(DEMO.glob("*/annotator.json")))
        if not self.adapter:
            raise UserError("no adapter was given", key="--adapter", fix="give one, or first run make demo")
        for name in self.adapter:
            check_place(*with_revision(name))


@dataclass(frozen=True)
class PostAnswer:
    """Answers for a post, by feature."""

    labels: dict[str, dict[str, float]]  # probabilities of labels
    lists: dict[str, tuple[str, float]]  # groups, and the confidence in them
    review: dict[str, tuple[float, float]]  # confidence and threshold, where the first is below the second


@dataclass(frozen=True)
class FileAnswer:
    """An annotated file."""

    output: Path
    rows: int
    unanswered: int  # rows that could not be annotated
    review: int  # rows that need review
    counts: dict[str, Counter[str]]  # by feature, how often each answer was given
    head: tuple[list[str], list[list[str]]]  # columns and first rows of the preview

    def lines(self) -> list[str]:
        lines = [f"{counted(self.rows, 'row')}; {self.review:,} for review by a person (model_needs_review)"]
        lines += [f"{self.unanswered:,} could not be annotated (model_problem)"] if self.unanswered else []
        for name, counts in self.counts.items():
            common = counts.most_common(5)
            rest = counts.total() - sum(count for _, count in common)
            more = f", others {rest:,}" if rest else ""
            lines.append(f"{name}: " + ", ".join(f"{answer} {count:,}" for answer, count in common) + more)
        return lines


def annotate_post(annotator: Annotator, texts: Sequence[str], share: float) -> PostAnswer:
    """Annotate a post, the ``texts`` of its columns; the least certain ``share`` of posts like the validation posts need review."""
    for text in texts:
        if is_blank(text):
            raise UserError("no post", expected="some text")
        if len(text) > LONGEST:
            raise UserError(f"{len(text):,} characters", expected=f"at most {LONGEST:,}")
    thresholds = review_thresholds(annotator.adapters, share, None)
    (row,) = annotator.annotate_window([texts[0] if len(texts) == 1 else texts])
    labels, lists, review = {}, {}, {}
    for adapter in annotator.adapters:
        confidence = adapter.confidence(row)
        if adapter.feature.classifies:
            numbers = zip(adapter.feature.labels, adapter.columns[1:], strict=True)
            labels[adapter.name] = {label: row[column] for label, column in numbers}
        else:
            lists[adapter.name] = (row[adapter.name], confidence)
        if confidence < thresholds[adapter.name]:
            review[adapter.name] = (confidence, thresholds[adapter.name])
    return PostAnswer(labels, lists, review)


def examples_of(annotator: Annotator) -> list[list[str]]:
    """Return texts to try: those of the adapters' codebooks, and for SBIC's features the miniature's."""
    codebooks = [adapter.feature.codebook for adapter in annotator.adapters]
    texts = [each.text for codebook in codebooks if codebook for each in codebook.examples[:MOST_EXAMPLES]]
    columns = [
        (text,) if isinstance(text, str) else text for text in [*(EXAMPLES if None in codebooks else ()), *texts]
    ]
    return [list(each) for each in dict.fromkeys(columns) if max(map(len, each)) <= LONGEST]


def likely_columns(annotator: Annotator, names: Sequence[str]) -> list[str]:
    """Return the columns that most likely hold the texts: a codebook's, or one of a usual name."""
    codebooks = [adapter.feature.codebook for adapter in annotator.adapters]
    own = [list(codebook.columns.texts.columns) for codebook in codebooks if codebook]
    usual = [[name] for name in names if name.casefold() in ("post", "text", "tweet")]
    return next(columns for columns in [*own, *usual, [names[0]]] if set(columns) <= set(names))


def annotate_file(
    annotator: Annotator,
    source: Path,
    columns: Sequence[str],
    share: float,
    folder: Path,
    progress: Callable[[int, int], None],
) -> FileAnswer:
    """Annotate a file into ``folder`` as ``sbic_llama.annotate`` would; ``progress`` gets the rows done and their total."""
    if not source.is_file():
        raise UserError("the file is no longer here", file=source.name, fix="upload it again")
    names = annotator.text_names
    if len(columns) != max(1, len(names)):
        raise UserError(f"{counted(len(columns), 'column')} of texts", expected=", ".join(names) or "one")
    texts = TextColumns(tuple(columns), names)
    file = survey(source, texts, strict=False)
    row_format = RowFormat(texts, PREFIX, review_thresholds(annotator.adapters, share, None))
    new = new_columns(annotator.adapters, [file], PREFIX, review=True)
    output = folder / f"annotated_{source.name}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        job = AnnotationJob([file], Path(scratch) / "parts", Path(scratch) / output.name, into_folder=False)
        parts = (annotated(window, annotator, row_format) for window in windows(job.files, job.parts(), texts))
        job.keep(_reported(parts, file.rows, progress), total=file.rows, done=0, show=False)
        job.assemble(new, PREFIX)
        shutil.move(job.output, output)
    return _summary(output, annotator, columns, file.rows)


def _reported(parts: Iterable[Part], rows: int, progress: Callable[[int, int], None]) -> Iterator[Part]:
    done = 0
    for part in parts:
        done += part.rows
        progress(done, rows)
        yield part


def _summary(output: Path, annotator: Annotator, columns: Sequence[str], rows: int) -> FileAnswer:
    counts: dict[str, Counter[str]] = {adapter.name: Counter() for adapter in annotator.adapters}
    names = [*columns, *(f"{PREFIX}{name}" for name in (*counts, "needs_review"))]
    head: list[list[str]] = []
    unanswered = review = 0
    for row in read_rows(output, lenient=True):
        problem = row.values.get(f"{PREFIX}problem")
        unanswered += bool(problem)
        review += str(row.values.get(f"{PREFIX}needs_review")).casefold() == "true"
        for name, of_feature in counts.items():
            if not problem:
                of_feature[str(row.values[f"{PREFIX}{name}"])] += 1
        if len(head) < PREVIEW:
            cells = [row.values.get(name) for name in names]
            head.append(["" if cell is None else str(cell) for cell in cells])
    return FileAnswer(output, rows, unanswered, review, counts, (names, head))


def layout(annotator: Annotator) -> None:
    """Lay out the page."""
    import gradio

    adapters = annotator.adapters
    trained = ", ".join(dict.fromkeys(f"{a.description.base_model} on {a.description.corpus}" for a in adapters))
    own = [adapter.feature.codebook is not None for adapter in adapters]
    gradio.Markdown("\n\n".join([f"# {TITLE}", *[WARNING] * (not all(own)), *[OWN_WARNING] * any(own)]))
    if any(adapter.description.of_miniature for adapter in adapters):
        gradio.Markdown(INVENTED)
    gradio.Markdown(PRIVACY)
    names = ", ".join(adapter.name for adapter in adapters)
    gradio.Textbox(f"{names}: {trained}", label="Adapters", interactive=False)
    info = "The least certain answers, by thresholds learned on validation posts"
    share = gradio.Slider(0.05, 0.5, value=0.1, step=0.05, label="Share of posts for review by a person", info=info)
    with gradio.Tab("A post"):
        _post_tab(annotator, share)
    with gradio.Tab("A file"):
        _file_tab(annotator, share)


def _post_tab(annotator: Annotator, share: Any) -> None:
    import gradio

    box = {"lines": 3, "max_length": LONGEST, "placeholder": "Type or paste a text"}
    boxes = [gradio.Textbox(label=name, **box) for name in annotator.text_names or ["Post"]]
    button = gradio.Button("Annotate", variant="primary")
    answers = {}
    with gradio.Row():
        for adapter in annotator.adapters:
            question = {"label": adapter.feature.question, "elem_id": adapter.name}
            answers[adapter.name] = (
                gradio.Label(**question)
                if adapter.feature.classifies
                else gradio.Textbox(**question, interactive=False)
            )
    review = gradio.Textbox(label="Should a person review it?", elem_id="review", interactive=False)
    if texts := examples_of(annotator):
        gradio.Examples(texts, boxes)

    def answer(*values: Any) -> list[Any]:
        *texts, share = values
        result = annotate_post(annotator, [text or "" for text in texts], share)
        lists = {name: f"{groups} ({confidence:.0%} sure)" for name, (groups, confidence) in result.lists.items()}
        reasons = [
            f"{name}: {confidence:.1%} sure, below its threshold of {threshold:.1%}"
            for name, (confidence, threshold) in result.review.items()
        ]
        return [*((result.labels | lists)[name] for name in answers), f"yes. {'; '.join(reasons)}" if reasons else "no"]

    event = {"fn": web.answering(answer), "inputs": [*boxes, share], "outputs": [*answers.values(), review]}
    button.click(**event, **MODEL)
    for each in boxes:
        each.submit(**event, **MODEL)


def _file_tab(annotator: Annotator, share: Any) -> None:
    import gradio

    file = gradio.File(label="CSV, TSV, JSON Lines, Parquet or Excel", file_types=[*FORMATS, ".gz"])
    several = len(annotator.text_names)
    label = f"Columns of {', '.join(annotator.text_names)}, in this order" if several else "Column of the posts"
    column = gradio.Dropdown([], label=label, elem_id="column", multiselect=bool(several))
    start = gradio.Button("Annotate the file", variant="primary")
    outcome = gradio.Textbox(label="Result", elem_id="outcome", lines=5, interactive=False)
    download = gradio.DownloadButton("Download the annotated file", visible=False)
    table = gradio.Dataframe(label=f"The first {PREVIEW} rows", wrap=True, interactive=False, visible=False)
    bar = gradio.Progress()

    def uploaded(path: str | None) -> Any:
        if path is None:
            return gradio.Dropdown([], value=None)
        names = columns_of(Path(path), lenient=True)
        likely = likely_columns(annotator, names)
        return gradio.Dropdown(names, value=likely if several else likely[0])

    def answer(path: str | None, column: str | list[str] | None, share: float, bar: Any) -> list[Any]:
        if path is None or not column:
            raise UserError("no file", expected="a file with a column of posts")

        def progress(done: int, total: int) -> None:
            bar((done, total), unit="posts")

        with web.working(Path(path)) as source:
            columns = [column] if isinstance(column, str) else column
            result = annotate_file(annotator, source, columns, share, source.parents[1], progress)
        headers, rows = result.head
        return [
            "\n".join(result.lines()),
            gradio.DownloadButton(value=result.output, visible=True),
            gradio.Dataframe(value=rows, headers=headers, visible=True),
        ]

    work = web.answering(answer)

    def with_bar(path: str | None, column: str | list[str] | None, share: float, progress: Any = bar) -> list[Any]:
        return work(path, column, share, progress)  # gradio injects the bar for a default of this type

    file.change(web.answering(uploaded), [file], [column])
    start.click(with_bar, [file, column, share], [outcome, download, table], **MODEL)


def main() -> None:
    arguments = parse(
        AppArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN --port 8000",
    )
    require("app")
    quiet_libraries()
    from sbic_llama.model.annotator import Annotator

    annotator = Annotator(*arguments.adapter)
    names = ", ".join(adapter.name for adapter in annotator.adapters)
    log(f"{names} in {annotator.precision.value} ({annotator.precision.reason})")
    web.serve(TITLE, lambda: layout(annotator), arguments)


if __name__ == "__main__":
    run(main)
