"""In-context learning against tuning, as a table and as a plot."""

from collections.abc import Iterator, Sequence

from ift_jax.evaluation.in_context import OVERALL, Line, Way
from ift_jax.io.text_tables import Column, table_lines
from ift_jax.report.plots import Series, bar_plot

_MOST_BARS = 30


def lines(ways: Sequence[Way], compared: Sequence[Line], width: int) -> Iterator[str]:
    """Yield a row for each task, each cluster and the mean: the ways, and what tuning gained."""
    names = Column("task", [_label(line) for line in compared], left=True)
    columns = [Column("examples", [str(line.n_examples) for line in compared])]
    for k, way in enumerate(ways):
        cells = [
            f"{line.means[k]:.3f} ±{(line.intervals[k].high - line.intervals[k].low) / 2:.3f}"
            for line in compared
        ]
        columns.append(Column(way.name, cells))
    for k, way in enumerate(ways[:-1]):
        gains = [line.gains[k] for line in compared]
        cells = [f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]" for gain, low, high in gains]
        columns.append(Column(f"gain over {way.name}", cells))
    yield from table_lines([names], columns, width)


def _label(line: Line) -> str:
    return f"{line.name} ({line.n_tasks} tasks)" if line.n_tasks > 1 else line.name


def plot(ways: Sequence[Way], compared: Sequence[Line]) -> str:
    """Return an SVG text: a group of bars for each cluster, or task, and for the mean."""
    shown = [line for line in compared if line.n_tasks > 1 or line.name == OVERALL]
    if len(shown) == 1:
        shown = [*compared[:-1][:_MOST_BARS], compared[-1]]
    series = []
    for k, way in enumerate(ways):
        means = [line.means[k] for line in shown]
        ends = [line.intervals[k] for line in shown]
        errors = [
            (max(mean - each.low, 0.0), max(each.high - mean, 0.0))
            for mean, each in zip(means, ends, strict=True)
        ]
        series.append(Series(way.name, range(len(shown)), means, errors))
    labels = [_label(line) for line in shown]
    return bar_plot("In-context against tuned", labels, series, x_label="share of right answers")
