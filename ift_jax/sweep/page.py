"""A sweep's results as lines, as plots, and as a page."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import counted
from ift_jax.evaluation.score_table import title
from ift_jax.io.text_tables import Column, table_lines
from ift_jax.report.page import page, plots, table
from ift_jax.report.plots import Series, bar_plot, line_plot
from ift_jax.sweep.results import SECONDS, Mean, SettingScores
from ift_jax.sweep.settings import override_text

_LOG_RANGE = 8  # Values of a field that are further apart have a logarithmic axis.
_NOTE = (
    "Means over seeds with Student's 95% intervals; of a setting with one seed, the interval is "
    "over its examples."
)


class Axis(NamedTuple):
    """The field along which settings are drawn.

    Attributes:
        field: Its dotted name.
        others: For each setting, what it sets besides.
    """

    field: str
    others: Sequence[str]


def metric_title(metric: str) -> str:
    """Return what plots and tables call a metric such as "heldout/exact_match"."""
    *places, name = metric.split("/")
    return " ".join([*places, title(name)])


def lines(settings: Sequence[SettingScores], metrics: Sequence[str], width: int) -> Iterator[str]:
    """Yield the table of a sweep, and that of the changes to its first setting."""
    if not settings:
        yield "no run is done"
        return
    yield "means over seeds with 95% intervals"
    yield from table_lines(_keys(settings), _columns(settings, metrics), width)
    changed = [each for each in settings if each.changes]
    shown = [metric for metric in metrics if metric != SECONDS]
    if changed and shown:
        yield ""
        yield f"change to {settings[0].name}, seed by seed"
        columns = [
            Column(metric_title(metric), [_change(each.changes.get(metric)) for each in changed])
            for metric in shown
        ]
        yield from table_lines(_keys(changed), columns, width)


def _keys(settings: Sequence[SettingScores]) -> list[Column]:
    return [
        Column("setting", [each.name for each in settings], left=True),
        Column("runs", [str(len(each.seeds)) for each in settings]),
    ]


def _columns(settings: Sequence[SettingScores], metrics: Sequence[str]) -> list[Column]:
    return [
        Column(metric_title(metric), [_text(each.means.get(metric), metric) for each in settings])
        for metric in metrics
    ]


def _text(mean: Mean | None, metric: str) -> str:
    if mean is None:
        return ""
    return f"{mean.mean:.0f}" if metric == SECONDS else mean.text


def _change(mean: Mean | None) -> str:
    if mean is None:
        return ""
    return f"{mean.mean:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}]"


def axis(settings: Sequence[SettingScores]) -> Axis | None:
    """Return the field with most numbers, to draw along; None if there is none with two."""
    fields = dict.fromkeys(field for each in settings for field in each.values)
    numbers = {
        field: {each.values.get(field) for each in settings}
        for field in fields
        if all(_is_number(each.values.get(field)) for each in settings)
    }
    field = max(numbers, key=lambda name: len(numbers[name]), default=None)
    if field is None or len(numbers[field]) < 2:
        return None
    others = [
        ", ".join(f"{k}={override_text(v)}" for k, v in each.values.items() if k != field)
        for each in settings
    ]
    return Axis(field, others)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def plot(settings: Sequence[SettingScores], metrics: Sequence[str]) -> list[str]:
    """Return SVG texts: lines along a field of numbers, or bars; one plot for losses beside scores.

    Args:
        settings: What the settings scored.
        metrics: The metrics to draw; the time is not.
    """
    drawn = [metric for metric in metrics if metric != SECONDS]
    losses = [metric for metric in drawn if metric.rpartition("/")[2].endswith(("loss", "nll"))]
    groups = [[metric for metric in drawn if metric not in losses], losses]
    along = axis(settings)
    draw = _bars if along is None else _curves
    return [draw(settings, group, along) for group in groups if group]


def _curves(settings: Sequence[SettingScores], metrics: Sequence[str], along: Axis | None) -> str:
    """Return lines along a field, one for each metric and what else the settings set."""
    assert along is not None
    series = []
    kinds = list(dict.fromkeys(along.others))
    for metric in metrics:
        for kind in kinds:
            points = [
                (float(each.values[along.field]), each.means[metric])
                for each, others in zip(settings, along.others, strict=True)
                if others == kind and metric in each.means
            ]
            points.sort(key=lambda point: point[0])  # Two settings of other names may be equal.
            if not points:
                continue
            name = metric_title(metric) + (f", {kind}" if kind and len(kinds) > 1 else "")
            means = [mean for _, mean in points]
            series.append(Series(name, [x for x, _ in points], *_values(means)))
    xs = [x for line in series for x in line.xs]
    is_wide = min(xs) > 0 and max(xs) >= _LOG_RANGE * min(xs)
    return line_plot(_head(settings), series, x_label=along.field, log_x=is_wide, dots=True)


def _bars(settings: Sequence[SettingScores], metrics: Sequence[str], along: Axis | None) -> str:
    """Return a group of bars for each setting."""
    series = []
    for metric in metrics:
        means = [each.means.get(metric) for each in settings]
        known = [mean or Mean(math.nan, math.nan, math.nan, 0) for mean in means]
        series.append(Series(metric_title(metric), range(len(settings)), *_values(known)))
    return bar_plot(_head(settings), [each.name for each in settings], series, x_label="mean")


def _values(means: Sequence[Mean]) -> tuple[list[float | None], list[tuple[float, float]]]:
    """Return means, and their distances to the ends of their intervals."""
    ys: list[float | None] = [None if math.isnan(mean.mean) else mean.mean for mean in means]
    return ys, [(mean.mean - mean.low, mean.high - mean.mean) for mean in means]


def _head(settings: Sequence[SettingScores]) -> str:
    most = max(len(each.seeds) for each in settings)
    return f"{counted(len(settings), 'setting')}, " + (
        f"{most} seeds each, 95% intervals" if most > 1 else "one run each"
    )


def sweep_page(
    name: str, settings: Sequence[SettingScores], metrics: Sequence[str], failed: Sequence[str]
) -> str:
    """Return the page of a sweep.

    Args:
        name: The sweep's name.
        settings: What the settings scored.
        metrics: The metrics of the plots and the tables.
        failed: A line for each run that failed.
    """
    rows = [
        [each.name, len(each.seeds), *(_text(each.means.get(m), m) for m in metrics)]
        for each in settings
    ]
    changes = [
        [each.name, *(_change(each.changes.get(m)) for m in metrics if m != SECONDS)]
        for each in settings
        if each.changes
    ]
    heads = [metric_title(metric) for metric in metrics]
    shown = [head for head, metric in zip(heads, metrics, strict=True) if metric != SECONDS]
    clusters = sorted({m for each in settings for m in each.means if m.count("/") == 2})
    of_clusters = [
        [each.name, *(_text(each.means.get(metric), metric) for metric in clusters)]
        for each in settings
    ]
    sections: list[tuple[str, object]] = [
        ("Plots", plots(plot(settings, metrics)) if settings else None),
        ("Scores", table(["setting", "runs", *heads], rows) if rows else None),
        (
            f"Changes to {settings[0].name}" if settings else "Changes",
            table(["setting", *shown], changes) if changes else None,
        ),
        (
            "Clusters",
            table(["setting", *map(metric_title, clusters)], of_clusters) if clusters else None,
        ),
        ("Failed", table(["run"], [[line] for line in failed]) if failed else None),
    ]
    return page(name, _NOTE, sections)
