"""Pictures made from run records, as SVG text to put into a page: they take the page's text colour, light or dark."""

from __future__ import annotations

import html
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from common.records import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour until the SVG is finished
COLOURS = ("#3f7fbf", "#d9822b", "#5a9e57", "#a05fb0")  # readable on white and on black


def metric_bars(records: Sequence[RunRecord], metric: str) -> str:
    """One bar a record with its 95 % interval. The axis starts at 0, so lengths compare."""
    measured = [record for record in records if metric in record.metrics]
    name = metric.replace("_", " ").replace("f1", "F1")
    with _figure(height=0.8 + 0.42 * len(measured)) as (figure, axes):
        values = [record.metrics[metric]["value"] for record in measured]
        intervals = [record.metrics[metric]["ci95"] for record in measured]
        errors = [
            [value - low for value, (low, _) in zip(values, intervals, strict=True)],
            [high - value for value, (_, high) in zip(values, intervals, strict=True)],
        ]
        places = range(len(measured))
        axes.barh(places, values, xerr=errors, color=COLOURS[0], ecolor=INK, capsize=3, height=0.62)
        axes.set_yticks(places, [record.title for record in measured])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel(f"{name} (95 % interval)")
        for place, value, (_, high) in zip(places, values, intervals, strict=True):
            axes.text(high + 0.015, place, f"{value:.3f}", va="center")
        summary = ", ".join(f"{record.title} {value:.3f}" for record, value in zip(measured, values, strict=True))
        return _svg(figure, f"{name}: {summary}")


def confusion_heatmap(record: RunRecord) -> str:
    """A record's confusion matrix: rows = labels, columns = predictions, shade = share of the row, text = count."""
    size = len(record.labels)
    with _figure(width=2.6 + 0.9 * size, height=1.2 + 0.55 * size) as (figure, axes):
        shares = [[count / max(1, sum(row)) for count in row] for row in record.confusion]
        # Vector cells; imshow would put a bitmap into the page.
        axes.pcolormesh(range(size), range(size), shares, cmap="Blues", vmin=0, vmax=1, shading="nearest")
        axes.invert_yaxis()
        for i, row in enumerate(record.confusion):
            for j, count in enumerate(row):
                # On the cell's own shade, not on the page's background.
                axes.text(
                    j, i, f"{count:,}", ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black"
                )
        axes.set_xticks(range(size), record.labels)
        axes.set_yticks(range(size), record.labels)
        axes.set_xlabel("prediction")
        axes.set_ylabel("label")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure, f"Confusion matrix of {record.title}, rows are labels: {record.confusion}")


def class_shares(splits: Mapping[str, Mapping[str, int]]) -> str:
    """Class shares of several samples side by side: sample → class → count."""
    classes = list(next(iter(splits.values())))
    with _figure(height=1.2 + 0.32 * len(classes) * len(splits)) as (figure, axes):
        width = 0.8 / len(splits)
        for number, (name, counts) in enumerate(splits.items()):
            total = sum(counts.values())
            places = [place + number * width for place in range(len(classes))]
            label = f"{name} (n = {total:,})"
            axes.barh(places, [counts[c] / total for c in classes], width * 0.92, color=COLOURS[number], label=label)
            for place, c in zip(places, classes, strict=True):
                axes.text(counts[c] / total + 0.008, place, f"{counts[c] / total:.1%}", va="center", fontsize=8)
        middle = 0.4 - width / 2
        axes.set_yticks([place + middle for place in range(len(classes))], classes)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of items")
        figure.legend(frameon=False, loc="outside upper left", ncols=2)  # of the figure: axes shrink with long names
        alt = "; ".join(
            f"{name}: " + ", ".join(f"{c} {n:,}" for c, n in counts.items()) for name, counts in splits.items()
        )
        return _svg(figure, f"Class shares. {alt}")


@contextmanager
def _figure(width: float = 7.2, height: float = 3.0) -> Iterator[tuple[Figure, Axes]]:
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
        "svg.hashsalt": "0",  # equal records, equal bytes
        "font.size": 10,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure, description: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # One page holds several pictures: without a prefix their ids would collide.
    prefix = f"p{zlib.crc32((text + description).encode()):x}-"
    text = re.sub(r'(id="|url\(#|xlink:href="#)', lambda match: match[0] + prefix, text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    label = html.escape(description, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()
