"""Plots as inline SVG whose colours are CSS variables of the page, so that they follow its light or
dark theme.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from utils.metrics import ConfusionMatrix
from utils.report.folder import Curves
from utils.report.library import Figure, LogLocator, NullFormatter, matplotlib

# by name: iteration, least and greatest of what others had there
Bands = dict[str, list[tuple[int, float, float]]]

# Colours that no plot uses otherwise, replaced in the SVG.
INK = "#0f0f01"
LINE = "#0f0f02"
SERIES = tuple(f"#0f0f{16 + number:02x}" for number in range(8))
THEME = {INK: "currentColor", LINE: "var(--line)"} | {
    c: f"var(--series-{n})" for n, c in enumerate(SERIES, 1)
}
# cells of the confusion matrix are this colour, as opaque as their share is high
HEAT = (
    0.28,
    0.54,
    0.95,
)
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.edgecolor": LINE,
    "grid.color": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.axisbelow": True,
}
WORDY = 25  # with more classes than this the cells of a matrix are too small for numbers


def svg(name: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> Markup:
    """Return a drawing of `size` inches as an SVG element. `name` keeps ids of several plots of a
    page apart.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # the browser has the glyphs of any script; we only lack their width
        warnings.filterwarnings("ignore", "Glyph")
        figure = Figure(size, layout="constrained")
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})

    text = stream.getvalue()
    for colour, value in THEME.items():
        text = text.replace(colour, value)

    return Markup(text[text.index("<svg") :])


def class_bars(rows: Sequence[tuple[str, float, float | None]], titles: tuple[str, str]) -> Markup:
    """Draw horizontal bars of per-class IoU in percent; rows: name, IoU, and of a second result or
    None, a mark.
    """

    def draw(figure: Figure) -> None:
        """Draw the bars, their numbers, and the marks of the second result."""
        axes = figure.subplots()
        names, values, marks = zip(*rows)
        places = np.arange(len(rows))
        axes.barh(places, values, 0.72, color=SERIES[0], label=titles[0])
        if any(mark is not None for mark in marks):
            axes.plot(
                np.array(marks, float),  # nan for None
                places,
                "|",
                ms=9,
                mew=2,
                color=INK,
                label=titles[1],
            )
            figure.legend(loc="outside upper left", ncols=2)

        for place, value in zip(places, values):
            axes.annotate(
                f"{value:.1f}", (101, place), va="center", ha="left", annotation_clip=False
            )

        axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xlabel="IoU, %")
        axes.set_yticks(places, names)
        axes.tick_params(length=0)
        axes.grid(axis="x")

    return svg("classes", (5.4, 0.9 + 0.24 * len(rows)), draw)


def confusion(matrix: ConfusionMatrix, names: Sequence[str]) -> Markup:
    """Draw a confusion matrix. Rows: classes in the truth; columns: what their pixels were
    predicted as, in percent of the row.
    """
    counts = matrix.counts.cpu().numpy()
    seen = np.flatnonzero(counts.sum(1) + counts.sum(0))
    shares = counts[np.ix_(seen, seen)] / counts[seen].sum(1, keepdims=True).clip(1)
    labels = [names[label] for label in seen.tolist()]
    wordy = len(seen) <= WORDY

    def draw(figure: Figure) -> None:
        """Draw the cells, with their numbers where there is room."""
        axes = figure.subplots()
        colours = np.empty((*shares.shape, 4))
        colours[..., :3] = HEAT
        colours[..., 3] = 0.9 * shares**0.6  # small shares are what one looks for
        axes.imshow(colours, interpolation="none")

        if wordy:
            for row, column in np.argwhere(shares >= 0.01):
                percent = f"{100 * shares[row, column]:.0f}"
                axes.text(column, row, percent, ha="center", va="center", fontsize=7)

        places = np.arange(len(seen))
        axes.set_xticks(places, labels, rotation=90)
        axes.set_yticks(places, labels)
        axes.set(xlabel="predicted", ylabel="truth")
        axes.tick_params(length=0, labelsize=size)

    if wordy:
        size = 8
        side = 2 + 0.25 * len(seen)
    else:
        size = 6
        side = 2 + 0.13 * len(seen)
    return svg("confusion", (side, side), draw)


def curves(
    name: str,
    series: Curves,
    ylabel: str,
    marks: bool = False,
    log: bool = False,
    others: Bands | None = None,
) -> Markup:
    """Draw values over iterations, one line per name; those without values keep their colour free.

    others: by name, what other people had at an iteration, from least to greatest: a dotted line
    of the name's colour, or a band.
    """

    def draw(figure: Figure) -> None:
        """Draw each line, and beside it what others had."""
        axes = figure.subplots()
        style: dict[str, Any] = {"ms": 3.5, "lw": 1.6, "ls": "-"}
        if marks:
            style["marker"] = "o"

        for number, (title, points) in enumerate(series.items()):
            if number >= len(SERIES):  # their colours come a second time
                style["ls"] = "--"
            if points:
                colour = SERIES[number % len(SERIES)]
                axes.plot(*zip(*points), color=colour, label=title, **style)
                if bands := (others or {}).get(title):
                    steps, low, high = zip(*bands)
                    axes.plot(steps, low, ":", color=colour, lw=1.2, label=f"{title}, others")
                    axes.plot(steps, high, ":", color=colour, lw=1.2)
                    axes.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)

        axes.set(xlabel="iteration", ylabel=ylabel)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))

        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid()
        figure.legend(loc="outside upper left", ncols=3)

    return svg(name, (5.4, 3.2 + 0.18 * (max(0, len(series) - 1) // 3)), draw)


def estimates(
    name: str,
    rows: Sequence[tuple[str, Sequence[float], Any]],
    xlabel: str,
    zero: bool = False,
) -> Markup:
    """Draw means with their standard errors, and the values that they are of, a line per row.

    rows: name, values, and their mean and error (nan: none). zero: values are differences, and 0 is
    marked.
    """

    def draw(figure: Figure) -> None:
        """Draw the values of each row, their mean and its error."""
        axes = figure.subplots()
        form = "+.1f" if zero else ".1f"
        for place, (_, values, found) in enumerate(rows):
            error = np.nan_to_num(found.error)
            axes.plot(values, [place + 0.24] * len(values), "o", ms=3, color=INK, alpha=0.55, mew=0)
            axes.errorbar(
                found.mean, place, xerr=error, fmt="o", ms=6, lw=2, capsize=4, color=SERIES[0]
            )
            axes.annotate(
                f"{found.mean:{form}}",
                (found.mean, place),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
            )

        if zero:
            axes.axvline(0, color=INK, lw=1)
        axes.set(ylim=(len(rows) - 0.4, -0.7), xlabel=xlabel)
        axes.set_yticks(range(len(rows)), [row for row, *_ in rows])
        axes.tick_params(length=0)
        axes.grid(axis="x")
        axes.margins(x=0.12)

    return svg(name, (5.4, 0.9 + 0.42 * len(rows)), draw)
