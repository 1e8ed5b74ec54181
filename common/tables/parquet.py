"""Read Parquet files in small steps: a few bytes of a file may stand for a value in every row."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from common.cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ROWS, BYTES = 1024, 32 * 2**20  # of a step, at most
# No page of a column is larger than the column. Posts do not compress as well as this.
UNPACKED, RATIO = 256 * 2**20, 200
LONG_VALUE = 100_000  # bytes, on average in a large row group
DICTIONARY = 2  # type of the page with the texts that a column's rows refer to


def read(path: Path, check: Callable[[Sequence[str]], None], *, longest: int) -> Iterator[dict[str, Any]]:
    """Yield rows; ``check`` gets the names of the columns before, and no row may have more than ``longest`` bytes."""
    with reading(path):
        for batch in batches(path, check, longest=longest):
            yield from _python_values(path, batch)


def batches(path: Path, check: Callable[[Sequence[str]], None], *, longest: int) -> Iterator[Any]:
    """Yield record batches, the values of each of which fit into memory as Python objects; see :func:`read`."""
    import pyarrow.parquet

    with reading(path):
        columns = pyarrow.parquet.read_metadata(path).schema
        schema = columns.to_arrow_schema()
        check(schema.names)
        texts = {
            leaf.path: leaf for leaf in map(columns.column, range(len(columns))) if "BYTE_ARRAY" in leaf.physical_type
        }
        # A row may refer to any number of texts: these are kept as references. Other columns are faster without.
        lists = [
            name for name, leaf in texts.items() if leaf.max_repetition_level and leaf.physical_type == "BYTE_ARRAY"
        ]
        number = 1
        with open(path, "rb") as raw, pyarrow.parquet.ParquetFile(path, read_dictionary=lists) as file:
            for batch in _batches(
                path, file, lambda chunk: _largest(raw, chunk) if chunk.path_in_schema in texts else 0
            ):
                for step in _steps(path, batch, number, longest):
                    yield step.cast(schema) if lists else step
                number += len(batch)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn pyarrow's errors about a file into a ``UserError``."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"not Parquet: {first_line(error)}", file=path, fix="write or download it again") from None


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _batches(path: Path, file: Any, largest: Callable[[Any], int]) -> Iterator[Any]:
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = [group.column(index) for index in range(group.num_columns)]
        for chunk in chunks:
            if chunk.total_uncompressed_size > max(UNPACKED, RATIO * chunk.total_compressed_size):
                problem = f"{chunk.total_compressed_size:,} bytes that unpack to {chunk.total_uncompressed_size:,}"
                raise UserError(problem, file=path, column=chunk.path_in_schema, fix="leave that column out")
            # Writers put 1,024 values into a page at least, and a page is unpacked whole.
            if chunk.total_uncompressed_size > max(UNPACKED, LONG_VALUE * chunk.num_values):
                problem = f"texts of {chunk.total_uncompressed_size / chunk.num_values:,.0f} bytes on average"
                fix = "write it again with at most 100 rows in a row group, or leave that column out"
                raise UserError(problem, file=path, column=chunk.path_in_schema, fix=fix)
        row = max(1, group.total_byte_size // max(1, group.num_rows), sum(map(largest, chunks)) // 4)
        yield from file.iter_batches(batch_size=max(1, min(ROWS, BYTES // row)), row_groups=[number])


def _largest(raw: BinaryIO, chunk: Any) -> int:
    """Return the bytes of a column's dictionary, each of whose values may be that of every row."""
    raw.seek(min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)), default=0))
    # A page begins with its type and unpacked size: Thrift's compact integers, seven bits a byte, doubled.
    numbers = re.match(rb"\x15([\x80-\xff]*[\0-\x7f])\x15([\x80-\xff]*[\0-\x7f])", raw.read(16))
    if numbers is None:
        return chunk.total_uncompressed_size
    kind, size = (sum((byte & 127) << 7 * place for place, byte in enumerate(each)) // 2 for each in numbers.groups())
    return size if kind == DICTIONARY else 0


def _steps(path: Path, batch: Any, first: int, longest: int) -> Iterator[Any]:
    """Divide a batch, so that the values of each part fit into memory as Python objects."""
    import numpy as np

    sizes = sum((_sizes(column) for column in batch.columns), np.zeros(len(batch), np.int64))
    if (sizes > longest).any():
        problem = f"a row of more than {longest / 2**20:.0f} MB"
        raise UserError(problem, file=path, row=first + int((sizes > longest).argmax()), fix="shorten or remove it")
    start, until = 0, np.cumsum(sizes)
    while start < len(batch):
        before = int(until[start - 1]) if start else 0
        stop = int(np.searchsorted(until, before + BYTES, side="right"))
        yield batch.slice(start, max(1, stop - start))
        start = max(start + 1, stop)


def _sizes(array: Any) -> np.ndarray:
    """Return about how many bytes each value takes."""
    import numpy as np
    import pyarrow
    from pyarrow import compute, types

    kind = array.type
    if isinstance(array, pyarrow.ExtensionArray):
        return _sizes(array.storage)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        array, kind = array.cast(pyarrow.large_binary()), pyarrow.large_binary()
    if types.is_dictionary(kind):
        return np.append(_sizes(array.dictionary), 0)[array.indices.fill_null(-1).to_numpy()]
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return compute.binary_length(array).fill_null(0).to_numpy().astype(np.int64)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        until = np.append(0, np.cumsum(_sizes(array.values)))
        offsets = array.offsets.to_numpy()
        return until[offsets[1:]] - until[offsets[:-1]]
    if types.is_fixed_size_list(kind):
        first, length = array.offset * kind.list_size, len(array) * kind.list_size
        return _sizes(array.values)[first : first + length].reshape(len(array), -1).sum(axis=1)
    if types.is_struct(kind):
        return sum((_sizes(part) for part in array.flatten()), np.zeros(len(array), np.int64))
    return np.full(len(array), 8)


def _python_values(path: Path, batch: Any) -> list[dict[str, Any]]:
    """Return a batch's rows; an error names the column that holds a date, time, or text Python lacks."""
    # pyarrow's own errors about values are ValueErrors too; where pytz is installed, an unknown time zone is a KeyError.
    unreadable = (ValueError, OverflowError, KeyError)
    try:
        return batch.to_pylist()
    except unreadable:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.to_pylist()
            except unreadable as error:
                problem = f"a value of type {column.type} can't be read: {first_line(error)}"
                fix = "write that column as UTF-8 text, or leave it out"
                raise UserError(problem, file=path, column=name, fix=fix) from None
        raise
