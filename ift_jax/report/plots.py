"""Plots as SVG texts that take the page's colors, drawn by matplotlib.

matplotlib is imported on use: it takes half a second, and only a page needs it.
"""

import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Readable on white and on black; Okabe and Ito's palette without its black and yellow.
_COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")
_INK = "#123457"  # Stands for the color of the page's text, which the page decides.
# Inches. At a phone's width a plot is shown nearly 1:1, so its text stays readable.
_SIZE = (5.0, 3.0)
_TITLE_CHARACTERS = 48  # So many are as wide as a plot.
_LOG_RANGE = 2  # A smaller range has no room for the labels of a logarithmic axis.
_MOST_NAMED = 8  # With more lines a legend would hide the plot.
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.titlesize": 12,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 11,
    "grid.alpha": 0.2,
    "grid.color": _INK,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "svg.fonttype": "none",  # Text stays text, in the page's font.
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


Distances = tuple[float, float]  # From a value down and up to the ends of its interval.


class Series(NamedTuple):
    """One line or one group of bars.

    Attributes:
        name: Its name in the legend.
        xs: Places on the horizontal axis.
        ys: As many values; None leaves a gap.
        errors: The interval of each value: a line over a bar, or a band around a line.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float | None]
    errors: Sequence[Distances] | None = None


def line_plot(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str = "",
    log_y: bool = False,
    log_x: bool = False,
    dots: bool = False,
) -> str:
    """Return lines over a common horizontal axis as the text of an `<svg>` element.

    Args:
        title: The title, which also tells the plot's names on the page from another plot's.
        series: The lines. A single point is drawn as a dot.
        x_label: What the horizontal axis shows.
        y_label: What the vertical axis shows.
        log_y: Whether the vertical axis is logarithmic, where all values are above 0 and differ.
        log_x: Whether the horizontal axis is, with a label at each place; all must be above 0.
        dots: Whether each place has a dot, because the values between are only drawn.
    """

    def draw(axes: Any) -> None:
        for number, line in enumerate(series):
            ys = [math.nan if y is None else y for y in line.ys]
            axes.plot(
                line.xs,
                ys,
                label=line.name,
                color=_COLORS[number % len(_COLORS)],
                linewidth=1.6 if len(series) <= _MOST_NAMED else 0.8,
                marker="o" if dots or len(ys) == 1 else None,
                markersize=4,
            )
            if line.errors is not None:
                lows = [y - low for y, (low, _) in zip(ys, line.errors, strict=True)]
                highs = [y + high for y, (_, high) in zip(ys, line.errors, strict=True)]
                color = _COLORS[number % len(_COLORS)]
                axes.fill_between(line.xs, lows, highs, color=color, alpha=0.2, linewidth=0)
        values = [y for line in series for y in line.ys if y is not None and math.isfinite(y)]
        if log_y and values and min(values) > 0 and max(values) > _LOG_RANGE * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            is_short = max(values) < 10 * min(values)  # So it may have a single power of 10.
            axes.yaxis.set_minor_formatter("{x:g}" if is_short else "")
        xs = sorted({x for line in series for x in line.xs})
        if log_x:
            axes.set_xscale("log", base=2)
            axes.set_xticks(xs, [f"{x:g}" for x in xs])
            axes.minorticks_off()
        else:
            axes.set_xlim(left=0)
            if max(xs, default=0) == 0:
                axes.set_xlim(right=1)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if any(line.errors is not None for line in series) and len(series) <= _MOST_NAMED:
            axes.figure.legend(loc="outside lower center", ncols=2)  # The bands fill the plot.
        elif 1 < len(series) <= _MOST_NAMED:
            axes.legend()

    return _svg(title, draw)


def histogram(title: str, series: Sequence[Series], *, x_label: str, y_label: str) -> str:
    """Return counts as steps: `xs` are the edges of the bins, one more than there are `ys`."""

    def draw(axes: Any) -> None:
        for number, bins in enumerate(series):
            color = _COLORS[number % len(_COLORS)]
            ys = [0.0 if y is None else y for y in bins.ys]
            axes.stairs(ys, bins.xs, fill=True, alpha=0.6, color=color, label=bins.name)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if 1 < len(series) <= _MOST_NAMED:
            axes.legend()

    return _svg(title, draw)


def bar_plot(title: str, labels: Sequence[str], series: Sequence[Series], *, x_label: str) -> str:
    """Return horizontal bars, a group for each label, the first label on top.

    Args:
        title: The title.
        labels: The name of each group.
        series: The bars; the `ys` of each are in the order of the labels.
        x_label: What the bars show.
    """
    height = 0.8 / len(series)

    def draw(axes: Any) -> None:
        for number, bars in enumerate(series):
            places = [place + height * (number - (len(series) - 1) / 2) for place in bars.xs]
            errors = None
            if bars.errors is not None:
                errors = [[low for low, _ in bars.errors], [high for _, high in bars.errors]]
            axes.barh(
                places,
                [math.nan if y is None else y for y in bars.ys],
                height,
                label=bars.name,
                color=_COLORS[number % len(_COLORS)],
                xerr=errors,
                error_kw={"ecolor": _INK, "capsize": 2, "linewidth": 1},
            )
        axes.set_yticks(range(len(labels)), labels)
        axes.margins(y=0.02)
        axes.invert_yaxis()
        axes.set_xlabel(x_label)
        if len(series) > 1:
            axes.figure.legend(loc="outside lower center", ncols=2)

    return _svg(title, draw, 1.2 + 0.24 * len(labels) * max(len(series) * 0.7, 1))


def standalone(svg: str) -> str:
    """Return an element as a file of its own, dark on white."""
    background = r'\1<rect width="100%" height="100%" fill="white"/>'
    return re.sub(r"(<svg[^>]*>)", background, svg.replace("currentColor", "#222222"), count=1)


def _svg(title: str, draw: Callable[[Any], None], height: float = _SIZE[1]) -> str:
    """Draw one figure, and return it as an element of a page."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(_SIZE[0], height))
        axes = figure.add_subplot()
        figure.suptitle(textwrap.fill(title, _TITLE_CHARACTERS))
        draw(axes)
        text = io.StringIO()
        # Without a date the same numbers give the same text.
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _as_element(text.getvalue())


def _as_element(document: str) -> str:
    """Make an SVG file an element of a page: scalable, in the page's color, without idle ids."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", svg))

    def keep_used(match: re.Match[str]) -> str:
        return match[0] if match[1] in used else ""

    svg = re.sub(r' id="([^"]*)"', keep_used, svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', svg, count=1)
    return svg.replace(_INK, "currentColor").strip()
