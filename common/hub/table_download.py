"""Read a split of a Hub dataset as a local table: ``hf://datasets/user/name@revision:split``.

The split's files are downloaded at one commit, and no code of the dataset is run. A single file is read as it is. Several, or
labels that the files have as numbers only, become one table in huggingface_hub's cache of assets. A name with a commit and a split
that is there needs no network.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import log, stage
from common.cli.errors import STREAMS, UserError, counted, shown
from common.cli.options import on_hub
from common.models.load_errors import loading
from common.models.retry import with_retries
from common.runtime.files import atomic_write
from common.runtime.project import NAME
from common.tables import parquet
from common.tables.encodings import named_encoding
from common.tables.label_exports import NONE
from common.tables.reading import JSON, LONGEST, read_rows, suffix_of, table_format
from common.tables.writing import json_text

if TYPE_CHECKING:
    import pyarrow

# pathlib makes one slash of two: such a name may have been a Path.
PATTERN = re.compile(
    r"hf:/{1,2}datasets/(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[^:@]+))?(:((?P<subset>(?!\.)[^:/]+)/)?(?P<split>\w[\w.-]*))?"
)
EXPECTED = "hf://datasets/user/name, with @revision and :split or :subset/split if needed"
CONVERTED = "refs/convert/parquet"  # the branch on which the Hub keeps Parquet files of public datasets
OF_CONVERTED = re.compile(r"([^/]+)/[^/]+/\d+\.parquet")  # subset/split/0000.parquet
FORMAT = "1"  # of prepared tables


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset, as a user names it or, with commit and split, as a run remembers it."""

    id: str
    revision: str | None = None
    subset: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        split = f":{self.subset + '/' if self.subset else ''}{self.split}" if self.split else ""
        return f"hf://datasets/{self.id}{at}{split}"

    @property
    def is_fixed(self) -> bool:
        return bool(self.split and re.fullmatch(r"[0-9a-f]{40}", self.revision or ""))


@dataclass(frozen=True)
class HubTable:
    """A split of a dataset at a commit, and the local file that holds it."""

    split: HubSplit
    path: Path

    @property
    def name(self) -> str:
        return str(self.split)


def parse_name(name: str | Path) -> HubSplit:
    """Return what a name means, or raise ``UserError``."""
    match = PATTERN.fullmatch(str(name))
    if match is None:
        raise UserError("not the name of a Hub dataset", file=name, expected=EXPECTED)
    return HubSplit(**match.groupdict())


def download_table(name: str | Path) -> HubTable:
    """Return a split at the commit that its revision means now, after downloading it.

    Raises:
        UserError: No such dataset, revision, subset or split, no login for it, or files in formats that this project does not read.
        HubFailed: The Hub cannot be reached, or keeps failing.
    """
    asked = parse_name(name)
    if asked.is_fixed and (path := _kept(asked)):
        return _named(asked, path)
    where = f"datasets/{asked.id}"

    def look() -> tuple[str, Mapping[str, list[str]], Any]:
        from huggingface_hub import HfApi

        commit = str(HfApi().dataset_info(asked.id, revision=asked.revision).sha)
        return commit, *_described(asked, commit)

    with loading(where, asked.revision):
        commit, files, features = with_retries(look, where)
    split = _chosen_split(asked, files)
    fixed = replace(asked, revision=commit, split=split)
    if path := _kept(fixed):
        return _named(fixed, path)
    paths = [_download(fixed, file) for file in _checked_files(fixed, files[split])]
    return _named(fixed, _as_table(fixed, paths, features))


def table_name(path: str | Path) -> str:
    """Return what records call a table: its file's name or, of one on the Hub, the whole name."""
    return str(parse_name(path)) if on_hub(path) else Path(path).name


def local_table(path: Path) -> Path:
    """Return a path as it is, or the local copy of the Hub's table that it names."""
    return download_table(path).path if on_hub(path) else path


def at_commit(path: Path) -> Path:
    """Return a path as it is, or a Hub table's name with its commit of today, which is the same even if its branch moves."""
    return Path(download_table(path).name) if on_hub(path) else path


def _named(split: HubSplit, path: Path) -> HubTable:
    if str(path) not in STREAMS:
        log(f"reading {split}")
    STREAMS[str(path)] = str(split)
    return HubTable(split, path)


def _described(asked: HubSplit, commit: str) -> tuple[dict[str, list[str]], Any]:
    """Return the files of each split, and what the dataset's card says about its columns (None if nothing)."""
    import datasets

    # Otherwise a second server is asked for a Parquet export, which private and offline hubs lack.
    datasets.config.USE_PARQUET_EXPORT = False
    try:
        builder = _builder(asked, commit)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        fix = f"try its Parquet files: {replace(asked, revision=CONVERTED)}"
        raise UserError("its data come from a script, which is never run", file=str(asked), fix=fix) from None
    except (datasets.data_files.EmptyDatasetError, datasets.exceptions.DataFilesNotFoundError):
        expected = "a dataset of Parquet, CSV or JSON files"
        raise UserError("no data files", file=str(asked), expected=expected) from None
    return {str(name): list(files) for name, files in builder.config.data_files.items()}, builder.info.features


def _builder(asked: HubSplit, commit: str) -> Any:
    """Return datasets' description of a subset: it knows which files belong to which split."""
    import datasets

    if Path(asked.id).exists():  # which datasets would read instead
        problem, fix = f"the folder {asked.id} here has the name of the dataset", "run the command in another folder"
        raise UserError(problem, file=str(asked), fix=fix)
    try:
        return datasets.load_dataset_builder(asked.id, asked.subset, revision=commit)
    except ValueError:
        names = datasets.get_dataset_config_names(asked.id, revision=commit)
        if asked.subset in names or (asked.subset is None and len(names) == 1):
            raise
        if asked.subset and names == ["default"]:  # subsets may be folders, as on the branch of converted datasets
            try:
                return datasets.load_dataset_builder(asked.id, data_dir=asked.subset, revision=commit)
            except OSError:
                pass
        raise _subset_error(asked, names) from None


def _subset_error(asked: HubSplit, names: Sequence[str]) -> UserError:
    example = replace(asked, subset=names[0], split=asked.split or "train")
    problem = f"no subset {shown(asked.subset)}" if asked.subset else "it has several subsets"
    return UserError(problem, file=str(asked), expected=f"one of {shown(list(names), 300)}", fix=f"as in {example}")


def _chosen_split(asked: HubSplit, files: Mapping[str, Sequence[str]]) -> str:
    if asked.split in files:
        return asked.split
    if asked.split is None and len(files) == 1:
        return next(iter(files))
    problem = f"no split {shown(asked.split)}" if asked.split else "it has several splits"
    example = replace(asked, split=next(iter(files)))
    raise UserError(problem, file=str(asked), expected=f"one of {shown(list(files), 300)}", fix=f"as in {example}")


def _checked_files(fixed: HubSplit, urls: Sequence[str]) -> list[str]:
    """Return the paths of a split's files in the repository; refuse formats that are not read, and subsets put together.

    datasets has refused files from elsewhere.
    """
    paths = [url.removeprefix(f"hf://datasets/{fixed.id}@{fixed.revision}/") for url in urls]
    for path in paths:
        try:
            _format_of(Path(path))
        except UserError as error:
            error.file = f"{replace(fixed, subset=None, split=None)}/{path}"
            error.fix = f"try its Parquet files: {replace(fixed, revision=CONVERTED)}"
            raise
    subsets = {match[1] if (match := OF_CONVERTED.fullmatch(path)) else "" for path in paths}
    if len(subsets) > 1 and "" not in subsets:
        raise _subset_error(replace(fixed, subset=None), sorted(subsets))
    return paths


def _format_of(path: Path) -> str:
    """Return the suffix that names a file's format; a .json file is read as JSON Lines or as an array of objects."""
    return ".jsonl" if suffix_of(path) in JSON else table_format(path)


def _download(fixed: HubSplit, path: str) -> Path:
    from huggingface_hub import hf_hub_download

    def work() -> Path:
        return Path(hf_hub_download(fixed.id, path, repo_type="dataset", revision=fixed.revision))

    where = f"datasets/{fixed.id}"
    with loading(where, fixed.revision):
        local = with_retries(work, where)
    STREAMS[str(local)] = f"{replace(fixed, subset=None, split=None)}/{path}"
    return local


def _folder(fixed: HubSplit) -> Path:
    from huggingface_hub import cached_assets_path

    commit = cached_assets_path(NAME, namespace=fixed.id, subfolder=str(fixed.revision))
    # What is prepared depends on this version, and on the encoding of text that is not UTF-8.
    return commit / "-".join(filter(None, (FORMAT, named_encoding()))) / (fixed.subset or "default") / str(fixed.split)


def _kept(fixed: HubSplit) -> Path | None:
    """Return the table that an earlier call left; its link leads nowhere once the Hub's cache is emptied."""
    folder = _folder(fixed)
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    return next((path for path in paths if path.is_file()), None)


def _as_table(fixed: HubSplit, paths: Sequence[Path], features: Any) -> Path:
    """Return one file for a split's files: a link to a single one, if it holds its labels as text."""
    formats = {_format_of(path) for path in paths}
    stem = _folder(fixed) / f"{fixed.id.partition('/')[2]}-{fixed.split}"
    of_parquet = formats == {".parquet"}
    labels = label_names(features, paths[0] if of_parquet else None)
    is_json = any(suffix_of(path) in JSON for path in paths)
    if len(paths) == 1 and not labels and not is_json:
        suffix = f"{_format_of(paths[0])}{'.gz' if paths[0].name.endswith('.gz') else ''}"
        return _link(stem.with_name(stem.name + suffix), paths[0])
    target = stem.with_name(f"{stem.name}{'.parquet' if of_parquet else '.jsonl'}")
    with stage(f"preparing {counted(len(paths), 'file')}"), atomic_write(target) as part:
        if of_parquet:
            _join_parquet(paths, labels, part)
        else:
            with open(part, "w", encoding="utf-8") as lines:
                lines.writelines(json_text(values) + "\n" for values in _text_rows(paths, labels))
    return target


def _link(link: Path, target: Path) -> Path:
    link.parent.mkdir(parents=True, exist_ok=True)
    part = link.with_name(f".{link.name}.{secrets.token_hex(4)}.part")
    part.symlink_to(target.resolve())
    part.replace(link)
    return link


def label_names(features: Any, file: Path | None) -> dict[str, list[str]]:
    """Return column → the names of its labels, which a dataset stores as numbers: from its card, or a Parquet file's metadata."""
    import datasets

    if features is None and file is not None:
        import pyarrow.parquet

        try:
            features = datasets.Features.from_arrow_schema(pyarrow.parquet.read_schema(file))
        except Exception:  # of a file by anybody: without names, labels stay numbers
            return {}
    kinds = {name: each.feature if isinstance(each, datasets.List) else each for name, each in (features or {}).items()}
    return {name: each.names for name, each in kinds.items() if isinstance(each, datasets.ClassLabel)}


def _text_rows(paths: Sequence[Path], labels: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    for path in paths:
        for row in read_rows(path, suffix=_format_of(path)):
            yield row.values | {name: _label(row.values[name], labels[name]) for name in labels if name in row.values}


def _label(value: Any, names: Sequence[str]) -> Any:
    """Return the name of a label's number; what is no such number stays, and -1 (no label) becomes None.

    A list of labels becomes text, as a cell lists several.
    """
    if isinstance(value, list):
        return ", ".join(str(_label(each, names)) for each in value) or NONE
    text = str(value).removesuffix(".0")
    if not re.fullmatch(r"-?\d{1,9}", text):
        return value
    return None if int(text) < 0 else names[int(text)] if int(text) < len(names) else value


def _join_parquet(paths: Sequence[Path], labels: Mapping[str, Sequence[str]], target: Path) -> None:
    """Write the rows of several files into one, with names in place of the numbers of labels."""
    import pyarrow
    import pyarrow.parquet

    schemas = []
    for path in paths:
        with parquet.reading(path):
            schemas.append(pyarrow.parquet.read_schema(path).remove_metadata())
    try:
        joint = pyarrow.unify_schemas(schemas, promote_options="permissive")
        for name in labels.keys() & set(joint.names):
            joint = joint.set(joint.get_field_index(name), pyarrow.field(name, pyarrow.string()))
        with pyarrow.parquet.ParquetWriter(target, joint) as writer:
            for path in paths:
                for batch in parquet.batches(path, lambda _: None, longest=LONGEST):
                    columns = [_column(batch, field, labels.get(field.name)) for field in joint]
                    writer.write_table(pyarrow.Table.from_arrays(columns, schema=joint))
    except pyarrow.ArrowException as error:
        fix = "write the dataset again with the same columns in all files"
        raise UserError(f"its files do not fit together: {parquet.first_line(error)}", file=paths[0], fix=fix) from None


def _column(batch: pyarrow.RecordBatch, field: pyarrow.Field, names: Sequence[str] | None) -> pyarrow.Array:
    import pyarrow

    if field.name not in batch.schema.names:
        return pyarrow.nulls(len(batch), field.type)
    column = batch.column(field.name)
    if names is None or pyarrow.types.is_string(column.type):
        return column.cast(field.type)
    return pyarrow.array([_label(value, names) for value in column.to_pylist()], field.type)
