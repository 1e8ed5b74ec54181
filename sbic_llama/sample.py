"""Draw posts for people to label: ``python -m sbic_llama.sample posts.csv --size 300 --output draw.csv``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import UserError, counted, printable, run, shown
from common.tables.reading import columns_of, probability_of, read_rows, text_of
from sbic_llama.data.codebook import read_codebook
from sbic_llama.data.features import FEATURES, Feature, confidence, feature_of
from sbic_llama.data.label_files import (
    OF_CHOICES,
    OF_LISTS,
    PREFIX,
    PROBABILITY,
    STRATUM,
    annotated_features,
    feature_in,
)
from sbic_llama.data.texts import POST, TextColumns, text_columns
from sbic_llama.labeling import draw, tools
from sbic_llama.labeling.draw import Drawn

MODULE = "sbic_llama.sample"
SIZE = 300
OVERLAP = 0.2
SHARES = (0.5, 0.1)  # of a class, for which the width of an interval is reported


@dataclass(kw_only=True)
class SampleArguments:
    """Draws rows of a file at random for people to label, each with a known probability.

    The draw has the columns sampling_stratum and sampling_probability, which prevalence needs to weight the labels, and an empty
    column for each question. A model's answers are left out, so that people do not see them.
    """

    posts: tuple[str, ...] = option((), "file of posts, annotated or not", positional=True)
    output: Path = option(help="file to write; with several annotators, its name without the ending is a folder")
    size: int | None = option(None, f"rows to draw (default: {SIZE})", minimum=1)
    width: float | None = option(
        None, "draw as many rows as a 95% interval this wide takes for a share near 50%", above=0, maximum=0.99
    )
    by: str | None = option(None, "draw equally many rows of each value of this column, such as model_offensiveYN")
    uncertain: str | None = option(None, "draw more of the rows whose answer to this feature is uncertain")
    codebook: Path | None = option(None, "codebook (YAML) of the question to ask")
    feature: tuple[str, ...] = option((), "features to ask about (default: those that the file has answers of)")
    text_column: str | None = option(None, "column of the posts (default: the codebook's, otherwise post)")
    key: str | None = option(None, "column that identifies a post (default: the text column)")
    tool: tools.Tool = option("table", "format: a table, or tasks of a labeling tool")
    annotators: int = option(1, "people who label, each with a file", minimum=1, maximum=100)
    overlap: float | None = option(
        None, f"share of the rows that all of several people label (default: {OVERLAP})", minimum=0, maximum=1
    )
    show_model: bool = option(False, "keep the model's answers, which then influence people")
    prefix: str = option(PREFIX, "prefix of a model's answers")
    seed: int = option(0, "seed of the draw", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        if len(self.posts) != 1:
            raise UserError(f"{len(self.posts)} files were given", expected="one file of posts")
        for first, second in (("size", "width"), ("by", "uncertain"), ("codebook", "feature")):
            if getattr(self, first) and getattr(self, second):
                raise UserError(f"--{first} and --{second} exclude each other", key=f"--{second}", fix="remove one")
        tools.check_ending(self.output, self.tool)
        if self.annotators > 1 and self.tool == "label_studio":
            problem = "Label Studio itself gives tasks to people"
            raise UserError(problem, key="--annotators", fix="remove it, and set the overlap in Label Studio")
        if self.overlap is not None and self.annotators == 1:
            fix = "add --annotators, or remove it"
            raise UserError("only several people share rows", key="--overlap", fix=fix)
        fixes = dict.fromkeys(self.outputs, "choose another --output; it may hold people's labels")
        if self.tool == "label_studio":
            fixes[self.output.with_name(tools.CONFIG)] = "choose an --output in another folder"
        for path, fix in fixes.items():
            if path.exists():
                raise UserError("the output already exists", file=path, fix=fix)

    @property
    def outputs(self) -> list[Path]:
        """Return a file for each annotator."""
        if self.annotators == 1:
            return [self.output]
        stem, _, _ = self.output.name.removesuffix(".gz").rpartition(".")
        folder, ending = self.output.with_name(stem), self.output.name.removeprefix(stem)
        return [folder / f"annotator_{number + 1}{ending}" for number in range(self.annotators)]


def questions(arguments: SampleArguments, path: Path, columns: Sequence[str]) -> list[Feature]:
    """Return the features to ask about."""
    if arguments.codebook is not None:
        return [feature_of(read_codebook(arguments.codebook))]
    annotated = annotated_features(columns, arguments.prefix)
    names = arguments.feature or annotated
    if unknown := [name for name in names if name not in FEATURES and name not in annotated]:
        expected = ", ".join(dict.fromkeys([*FEATURES, *annotated]))
        raise UserError(f"unknown feature {shown(unknown[0])}", key="--feature", expected=expected)
    if not names:
        raise UserError("no question to ask", key="--feature", fix="name a feature, or give a --codebook")
    features = (
        feature_in(path, columns, name, arguments.prefix) if name in annotated else FEATURES[name] for name in names
    )
    return list(features)


def chosen_rows(arguments: SampleArguments, path: Path, texts: TextColumns, key: str) -> tuple[list[Drawn], int]:
    """Return which rows are drawn, and of how many. Rows without a text or with a problem are never drawn."""
    extra = [column for column in (arguments.by, key) if column is not None]
    places: list[int] = []
    values: list[Any] = []
    seen: set[str] = set()
    feature = None
    for place, row in enumerate(read_rows(path, [*texts.columns, *extra], lenient=True)):
        if row.problem or texts.problem(row.values):
            continue
        name = text_of(row, key)
        if name is None or name in seen:
            problem = "no id" if name is None else f"the id of an earlier row, {shown(name)}"
            raise row.error(problem, key, expected="a unique id for each post", fix="give a column of ids as --key")
        seen.add(name)
        places.append(place)
        if arguments.by is not None:
            values.append(text_of(row, arguments.by) or "(empty)")
        if arguments.uncertain is not None:
            feature = feature or feature_in(path, list(row.values), arguments.uncertain, arguments.prefix)
            values.append(_confidence(row, feature, arguments.prefix))
    if not places:
        raise UserError("no rows with a text", file=path, expected="at least one")
    size = arguments.size or SIZE
    if arguments.width is not None:
        size = draw.size_for(arguments.width, 0.5, len(places))
    if arguments.by is not None:
        _check_strata(arguments.by, values, size, path)
        return draw.by_value(places, values, size, arguments.seed), len(places)
    if arguments.uncertain is not None:
        return draw.by_uncertainty(places, values, size, arguments.seed), len(places)
    return draw.simple(places, size, arguments.seed), len(places)


def rows_to_label(
    arguments: SampleArguments, path: Path, chosen: Sequence[Drawn], keep: set[str]
) -> list[dict[str, Any]]:
    """Return the drawn rows, with how each was drawn and without the model's answers; columns to ``keep`` are none of these."""
    rows, by_place = {}, {each.row: each for each in chosen}

    def kept(column: str) -> bool:
        return arguments.show_model or column in keep or not column.startswith(arguments.prefix)

    for place, row in enumerate(read_rows(path, lenient=True)):
        if (each := by_place.get(place)) is not None:
            values = {name: value for name, value in row.values.items() if kept(name)}
            rows[place] = values | {STRATUM: each.stratum, PROBABILITY: each.probability}
    return [rows[each.row] for each in chosen]


def _confidence(row: Any, feature: Feature, prefix: str) -> float:
    answer = f"{prefix}{feature.name}"
    start = answer + (f"_{OF_CHOICES}" if feature.choices else "_probability_" if feature.branches else OF_LISTS)
    columns = [name for name in row.values if name.startswith(start)]
    if answer not in row.values or not columns:
        missing = start if answer in row.values else answer
        fix = "annotate the file, or name a feature that it has answers of"
        raise row.error("missing", missing, expected="what sbic_llama.annotate writes", fix=fix)
    if text_of(row, answer) is None:
        return 0.0
    read = probability_of if feature.branches else _log_probability
    return confidence(feature, {name.removeprefix(f"{answer}_"): read(row, name) for name in columns})


def _log_probability(row: Any, column: str) -> float:
    try:
        return float(text_of(row, column) or "")
    except ValueError:
        raise row.error("not a number", column, expected="what sbic_llama.annotate writes") from None


def _check_strata(column: str, values: Sequence[str], size: int, path: Path) -> None:
    counts = Counter(values)
    if len(counts) * draw.FEWEST > size:
        problem = f"{len(counts):,} different values, with at least {draw.FEWEST} rows to draw of each"
        fix = "draw more rows, or by a column with fewer values"
        raise UserError(problem, file=path, column=column, expected=f"at most {size // draw.FEWEST}", fix=fix)


def sample(arguments: SampleArguments) -> None:
    """Draw rows and write them."""
    from common.hub.table_download import local_table

    path = local_table(Path(arguments.posts[0]))
    columns = columns_of(path, lenient=True)
    features = questions(arguments, path, columns)
    texts = text_columns([f.texts if arguments.codebook else POST for f in features], arguments.text_column)
    if arguments.key is None and len(texts.columns) > 1:
        raise UserError(
            f"a post is in {len(texts.columns)} columns", key="--key", expected="a column that identifies it"
        )
    if arguments.tool in ("prodigy", "doccano") and len(features) > 1:
        raise UserError(f"{len(features)} questions", key="--feature", expected="one, as this tool asks one at a time")
    added = {STRATUM, PROBABILITY, *(feature.name for feature in features)}
    if arguments.tool == "doccano":
        added |= {"label"} | {"text"} - set(texts.columns)
    if taken := added & set(columns):
        fix = "rename it, or draw from the file without it"
        raise UserError("the file has a column that the draw adds", file=path, column=min(taken), fix=fix)
    key = arguments.key or texts.columns[0]
    chosen, count = chosen_rows(arguments, path, texts, key)
    keep = {*texts.columns, key}
    rows = rows_to_label(arguments, path, chosen, keep)
    overlap = OVERLAP if arguments.overlap is None else arguments.overlap
    parts = draw.divided(len(rows), arguments.annotators, overlap)
    for output, places in zip(arguments.outputs, parts, strict=True):
        of_person = [rows[place] for place in places]
        tools.write_tasks(output, of_person, texts, features, arguments.tool, prefix=arguments.prefix, keep=keep)
    _report(arguments, chosen, count, [len(places) for places in parts])


def _report(arguments: SampleArguments, chosen: Sequence[Drawn], count: int, sizes: Sequence[int]) -> None:
    print(f"{len(chosen):,} of {counted(count, 'row')} drawn with seed {arguments.seed}")
    strata = Counter((each.stratum, each.name, each.probability) for each in chosen)
    for (number, name, probability), size in sorted(strata.items()):
        print(f"  stratum {number} ({printable(name)}): {size:,}, each with probability {probability:.4f}")
    if len(strata) == 1:
        for share in SHARES:
            width = next((w / 1000 for w in range(1, 1000) if draw.size_for(w / 1000, share, count) <= len(chosen)), 1)
            print(
                f"  their labels alone give a 95% interval {100 * width:.1f} points wide for a share near {share:.0%}"
            )
    for output, size in zip(arguments.outputs, sizes, strict=True):
        log(f"{counted(size, 'row')}: {output}")
    if arguments.tool == "label_studio":
        log(f"labeling configuration: {arguments.output.with_name(tools.CONFIG)}")


def main() -> None:
    arguments = parse(
        SampleArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} posts.csv --codebook codebook.yaml --key id --size 300 --output draw.csv\n"
        f"  python -m {MODULE} annotated.csv --uncertain offensiveYN --key id --tool label_studio --output tasks.json",
    )
    sample(arguments)


if __name__ == "__main__":
    run(main)
