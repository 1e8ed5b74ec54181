"""Strategies of the property tests: what people, programs and bad luck put into files.

A property test states what holds for every input, and hypothesis looks for a counterexample. The default tests always try the same
few examples. To try many: ``python -m pytest -m "properties and not slow" --hypothesis-profile many``.
"""

from __future__ import annotations

import datetime
import decimal
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from hypothesis import strategies as st

from common.cli.errors import UserError

NASTY = (
    "", " ", "\t", "\n", "\r", "\r\n", "a\rb", '"', '""', "'", ",", ";", "|", "\\", "\0", "\x1b[31m", "\x7f", "\x85", "\u2028",
    "\ufeff", "\ufeffa", "\u202eabc", "\u200b", "e\u0301", "\U0001f468\u200d\U0001f469", "ß", "İ", "ŉ", "ﬁ", "\ufffd", "\u2581",
    "null", "NaN", "nan", "inf", "-", "-1", "0.5", "1e999", "1_0", "９", "true", "none", "#", "=1+1", "@user", "[]", '["a"]',
    "{}", "&amp;lt;", "&amp;amp;amp;#44;", "&#0;", "&#xD800;", "&#" + "9" * 5000 + ";", "</s>", "<s>", "[INST]", "<0x0A>", "<unk>",
    "### Response:\n", "\n\n### Instruction:\n", "../..", "{{ 7 * 7 }}", "%s", "<script>", "x" * 3000,
)  # fmt: skip
SURROGATES = ("\ud83d", "\udc80", "a\udfffb")  # halves of pairs: JSON and YAML can spell them, UTF-8 cannot

texts = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=12), st.lists(st.sampled_from(NASTY), max_size=4).map("".join)
)
names = st.one_of(st.sampled_from(("a", "b", "post", "id")), texts)
numbers = st.one_of(
    st.integers(-2, 3),
    st.sampled_from((2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 0.5, 1.5, -0.0, 1e308)),
    st.floats(),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts, st.sampled_from(SURROGATES)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(names, st.just("\ud83d")), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
WRONG_KINDS = (
    None,
    True,
    -1,
    0.5,
    2**63,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud83d",
    "\x1b[2J",
    [],
    [None],
    {},
    {"a": [0]},
)
DEEP = "[" * 100_000  # deeper than any parser's stack


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Edit bytes one to three times: replace, remove, insert or double a piece, or cut everything after it."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 6)))
        piece = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from(NASTY).map(lambda text: text.encode()), st.just(data[start:end] * 2))
        )  # fmt: skip
        data = data[:start] + piece + (data[end:] if draw(st.integers(0, 9)) else b"")
    return data


@st.composite
def replaced(draw: st.DrawFn, value: Any, values: st.SearchStrategy = json_values) -> Any:
    """Replace or remove one value at any depth of a JSON value, or add an unknown one next to it."""
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 3)):
        inner = dict(value) if isinstance(value, dict) else dict(enumerate(value))
        key = draw(st.sampled_from(list(inner)))
        kind = draw(st.sampled_from(("inside",) * 4 + ("missing", "more")))
        if kind == "inside":
            inner[key] = draw(replaced(inner[key], values))
        elif kind == "missing":
            del inner[key]
        else:
            inner[draw(names) if isinstance(value, dict) else len(inner)] = draw(values)
        return inner if isinstance(value, dict) else list(inner.values())
    return draw(values)


def everywhere(value: Any, others: Sequence[Any]) -> Iterator[Any]:
    """Yield the JSON value with each value in it replaced by each of ``others``, and removed, one at a time.

    Of objects with the same keys side by side, such as measures, two stand for all.
    """
    yield from others
    if isinstance(value, (dict, list)):
        inner = dict(value) if isinstance(value, dict) else dict(enumerate(value))
        alike: Counter[frozenset[str]] = Counter()
        for key in inner:
            if isinstance(inner[key], dict):
                alike[kind := frozenset(inner[key])] += 1
                if alike[kind] > 2:
                    continue
            without = {k: v for k, v in inner.items() if k != key}
            yield without if isinstance(value, dict) else list(without.values())
            for other in everywhere(inner[key], others):
                changed = inner | {key: other}
                yield changed if isinstance(value, dict) else list(changed.values())


def dumped(value: Any) -> bytes:
    """Encode a value as JSON; keys may repeat and texts may hold surrogates."""
    return json.dumps(value).encode()


PARQUET_TYPES: dict[pyarrow.DataType, tuple[Any, ...]] = {
    pyarrow.string(): NASTY,
    pyarrow.large_string(): ("", "a"),
    pyarrow.dictionary(pyarrow.int8(), pyarrow.string()): ("", "a", "b\0"),
    pyarrow.binary(): (b"", b"\xff\0"),
    pyarrow.null(): (),
    pyarrow.bool_(): (True, False),
    pyarrow.int64(): (0, -(2**63), 2**63 - 1),
    pyarrow.uint64(): (0, 2**64 - 1),
    pyarrow.float16(): (0.5, float("nan")),
    pyarrow.float64(): (0.0, -0.0, 1e308, float("nan"), float("inf")),
    pyarrow.decimal128(38, 3): (decimal.Decimal("1.5"), decimal.Decimal("-0.001")),
    pyarrow.date32(): (datetime.date(1, 1, 1), 2**30, -(2**30)),
    pyarrow.time64("ns"): (0, 1, 86_399_999_999_999),
    pyarrow.timestamp("us"): (0, 2**62, -(2**62)),
    pyarrow.timestamp("ns"): (0, 1, 2**62),
    pyarrow.timestamp("s", tz="Europe/Rome"): (0, 10**11),
    pyarrow.timestamp("s", tz="Nowhere/Land"): (0,),
    pyarrow.duration("ns"): (0, 1),
    pyarrow.duration("s"): (0, 2**55),
    pyarrow.list_(pyarrow.string()): ([], ["a", None]),
    pyarrow.struct({"a": pyarrow.int8(), "b": pyarrow.list_(pyarrow.date32())}): ({"a": 1, "b": [2**30]}, {"a": None, "b": []}),
    pyarrow.map_(pyarrow.string(), pyarrow.int8()): ([("a", 1), ("a", 2)], []),
}  # fmt: skip


@st.composite
def parquet_tables(draw: st.DrawFn) -> pyarrow.Table:
    """Draw a table with columns of every type, with nulls and the extreme values of a type."""
    rows = draw(st.integers(0, 3))
    kinds = draw(st.lists(st.sampled_from(list(PARQUET_TYPES)), min_size=1, max_size=4))
    columns = []
    for kind in kinds:
        values = [None, *PARQUET_TYPES[kind]]
        columns.append(pyarrow.array([draw(st.sampled_from(values)) for _ in range(rows)], kind))
    return pyarrow.table(columns, names=[draw(names) for _ in kinds])


def check_refusal(error: UserError, file: Path | str) -> None:
    """Check that a refusal is one printable line, short enough to read, that names the file."""
    line = str(error)
    assert line.isprintable(), line
    assert Path(file).name in line
    assert len(line) < 1000, line


def check(path: Path, data: bytes, read: Callable[[Path], Any], used: Callable[[Any], Any]) -> None:
    """Read a file that holds ``data``: it is refused properly, or what was read can be used."""
    path.write_bytes(data)
    try:
        value = read(path)
    except UserError as error:
        check_refusal(error, path)
    else:
        used(value)
