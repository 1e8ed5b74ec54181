"""A page to try adapters on, with a post or a file: ``python -m sbic_llama.app --adapter PATH_OR_ID``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import web
from common.cli.arguments import option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from common.models.loading import check_place, with_revision
from common.tables.reading import FORMATS
from common.web import MODEL, PageArguments

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Annotator

MODULE = "sbic_llama.app"
DEMO = Path("output/demo/sbic")  # what `make demo` trains
EXAMPLES = ("the florbs by the river sing well", "what a quiet day")  # of the miniature, whose groups are invented
WARNING = (
    "**Content warning.** The corpus behind these models consists of offensive posts, and some answers name groups that a post "
    "targets. The labels are opinions of crowd workers, and the model repeats them with their mistakes. Not fit for judging, "
    "watching or punishing people."
)
INVENTED = "**Adapters of the miniature.** They learnt from invented posts. What they say of real ones means nothing."
PRIVACY = (
    "Nothing leaves the machine that serves this page. A file that you upload, and its annotation, lie in a temporary folder for "
    "ten minutes."
)


@dataclass(kw_only=True)
class AppArguments(PageArguments):
    """Opens a page on which adapters annotate a post or a file."""

    adapter: tuple[str, ...] = option(
        (),
        "adapters for different features: folders or Hub ids, user/name@v1 at a revision (default: those of make demo)",
    )

    def __post_init__(self) -> None:
        if not self.adapter:
            self.adapter = tuple(str(path.parent) for path in sorted(DEMO.glob("*/annotator.json")))
        if not self.adapter:
            raise UserError("no adapter was given", key="--adapter", fix="give one, or run make demo first")
        for name in self.adapter:
            check_place(*with_revision(name))


def layout(annotator: Annotator) -> None:
    """The page."""
    import gradio

    from sbic_llama.annotation import in_browser

    adapters = annotator.adapters
    trained = ", ".join(dict.fromkeys(f"{one.description.base_model} on {one.description.corpus}" for one in adapters))
    gradio.Markdown(f"# What would annotators say of a post?\n\n{WARNING}")
    if any(one.description.of_miniature for one in adapters):
        gradio.Markdown(INVENTED)
    gradio.Markdown(PRIVACY)
    gradio.Textbox(f"{', '.join(one.name for one in adapters)}: {trained}", label="Adapters", interactive=False)
    share = gradio.Slider(
        0.05, 0.5, value=0.1, step=0.05, label="Share of posts that a person looks at",
        info="The least certain answers, by thresholds that were learnt on validation posts",
    )  # fmt: skip

    with gradio.Tab("A post"):
        post = gradio.Textbox(label="Post", lines=3, max_length=in_browser.LONGEST, placeholder="Type or paste a post")
        ask = gradio.Button("Annotate", variant="primary")
        answers = {}
        with gradio.Row():
            for one in adapters:
                answers[one.name] = (
                    gradio.Label(label=one.feature.question, elem_id=one.name)
                    if one.feature.classifies
                    else gradio.Textbox(label=one.feature.question, elem_id=one.name, interactive=False)
                )
        review = gradio.Textbox(label="Does a person look at it?", elem_id="review", interactive=False)
        gradio.Examples([[text] for text in EXAMPLES], [post])

        def annotate_post(text: str, share: float) -> list[Any]:
            found = in_browser.annotate_post(annotator, text or "", share)
            lists = {name: f"{groups} ({sure:.0%} sure)" for name, (groups, sure) in found.lists.items()}
            said = [
                f"{name}: {sure:.1%} sure, under its threshold of {least:.1%}"
                for name, (sure, least) in found.review.items()
            ]
            return [*((found.labels | lists)[name] for name in answers), f"yes. {'; '.join(said)}" if said else "no"]

        asked = {"fn": web.answering(annotate_post), "inputs": [post, share], "outputs": [*answers.values(), review]}
        ask.click(**asked, **MODEL)
        post.submit(**asked, **MODEL)

    with gradio.Tab("A file"):
        file = gradio.File(label="CSV, TSV, JSON Lines or Parquet", file_types=[*FORMATS, ".gz"])
        column = gradio.Dropdown([], label="Column of the posts", elem_id="column")
        start = gradio.Button("Annotate the file", variant="primary")
        outcome = gradio.Textbox(label="What was done", elem_id="outcome", lines=5, interactive=False)
        download = gradio.DownloadButton("Download the annotated file", visible=False)
        table = gradio.Dataframe(
            label=f"The first {in_browser.PREVIEW} rows", wrap=True, interactive=False, visible=False
        )

        def uploaded(path: str | None) -> Any:
            if path is None:
                return gradio.Dropdown([], value=None)
            names = in_browser.columns_of(Path(path))
            likely = [name for name in names if name.casefold() in ("post", "text", "tweet")]
            return gradio.Dropdown(names, value=(likely or names)[0])

        def annotate_file(path: str | None, column: str | None, share: float, progress: Any) -> list[Any]:
            if path is None or column is None:
                raise UserError("no file", expected="one with a column of posts")
            with web.working(Path(path)) as source:
                found = in_browser.annotate_file(
                    annotator,
                    source,
                    column,
                    share,
                    source.parents[1],
                    lambda done, of: progress((done, of), unit="posts"),
                )
            lines = [f"{found.rows:,} rows; {found.review:,} go to a person (model_needs_review)"]
            lines += [f"{found.unanswered:,} could not be annotated (model_problem)"] if found.unanswered else []
            for name, counts in found.counts.items():
                common = counts.most_common(5)
                rest = counts.total() - sum(count for _, count in common)
                more = f", others {rest:,}" if rest else ""
                lines.append(f"{name}: " + ", ".join(f"{answer} {count:,}" for answer, count in common) + more)
            headers, rows = found.head
            return [
                "\n".join(lines),
                gradio.DownloadButton(value=found.output, visible=True),
                gradio.Dataframe(value=rows, headers=headers, visible=True),
            ]

        work = web.answering(annotate_file)

        bar = gradio.Progress()

        def with_bar(path: str | None, column: str | None, share: float, progress: Any = bar) -> list[Any]:
            return work(path, column, share, progress)

        file.change(web.answering(uploaded), [file], [column])
        start.click(with_bar, [file, column, share], [outcome, download, table], **MODEL)


def main() -> None:
    arguments = parse(
        AppArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN --port 8000",
    )
    web.require()
    quiet_libraries()
    from sbic_llama.model.annotator import Annotator

    annotator = Annotator(*arguments.adapter)
    log(
        f"{', '.join(one.name for one in annotator.adapters)} in {annotator.precision.value} ({annotator.precision.reason})"
    )
    web.serve("What would annotators say of a post?", lambda: layout(annotator), arguments)


if __name__ == "__main__":
    run(main)
