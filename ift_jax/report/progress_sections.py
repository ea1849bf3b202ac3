"""Sections of a report about scores while a run trains: plots, and tables with intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.evaluation.metric_values import is_number
from ift_jax.evaluation.score_table import title
from ift_jax.report.page import Markup, folded, joined, plots, table
from ift_jax.report.plots import Distances, Series, bar_plot, line_plot
from ift_jax.report.run_files import Record, RunFiles

SETS = {"eval": "Unseen examples of the trained tasks", "heldout": "Tasks that are never trained"}
OVERALL = "overall"  # In the place of a task's name: the means over tasks.
_MOST_BARS = 20
_LARGEST_OPEN_TABLE = 30  # Rows; a longer table is folded.
_MOST_STEPS = 6  # Columns; of more steps the first, the last and some between are shown.
_NOT_FOLLOWED = ("examples", "baseline", "tasks")  # The same at every step.


def followed_metrics(record: Record) -> list[str]:
    """Return the metrics of a record of `evaluations.jsonl` that training may change."""
    return [
        name
        for name, value in record["overall"].items()
        if is_number(value) and name not in _NOT_FOLLOWED
    ]


def progress(run: RunFiles) -> Markup | None:
    """Return the scores of a fixed set of examples while the run trains, each mixture apart."""
    parts: list[object] = []
    for which, of_what in SETS.items():
        records = [record for record in run.evaluations if record["which"] == which]
        if not records:
            continue
        steps = [record["step"] for record in records]
        series = [
            Series(title(name), steps, *_means(records, name))
            for name in followed_metrics(records[-1])
        ]
        drawn = [line_plot(f"{of_what}: means over tasks", series, x_label="step")]
        drawn += _before_and_after(of_what, records)
        parts.append(plots(drawn))
        shown = some_steps(steps)
        heads = ["task", "metric", *(f"step {step:,}" for step in shown)]
        chosen = [record for record in records if record["step"] in shown]
        rows = list(_rows(chosen))
        summary = f"{of_what}: every task, with 95% intervals"
        is_open = len(rows) <= _LARGEST_OPEN_TABLE
        parts.append(folded(summary, table(heads, rows), is_open=is_open))
    return joined(parts) if parts else None


def _means(
    records: Sequence[Record], metric: str
) -> tuple[list[float | None], list[Distances] | None]:
    """Return the mean over tasks at each step and, where it has them, its intervals."""
    values = [record["overall"].get(metric) for record in records]
    intervals = [record["intervals"].get(OVERALL, {}).get(metric) for record in records]
    if not any(intervals):
        return values, None
    return values, [_distances(*pair) for pair in zip(values, intervals, strict=True)]


def _distances(value: Any, interval: Mapping[str, float] | None) -> Distances:
    """Return how far the ends of an interval are from its value."""
    if interval is None or not is_number(value):
        return (0.0, 0.0)
    return (max(value - interval["low"], 0.0), max(interval["high"] - value, 0.0))


def _before_and_after(of_what: str, records: Sequence[Record]) -> Iterator[str]:
    """Yield bars of each task at the first and the last step, of the metric that matters most."""
    first, last = records[0], records[-1]
    metrics = followed_metrics(last)
    if len(records) < 2 or len(last["tasks"]) < 2 or not metrics:
        return
    metric = metrics[0]
    tasks = [task for task in sorted(last["tasks"]) if is_number(last["tasks"][task].get(metric))]
    name = f"{of_what}: before and after"
    if len(tasks) > _MOST_BARS:
        tasks = _changed_most(tasks, first, last, metric)
        name = f"{of_what}: the {len(tasks)} tasks that changed most"
    series = []
    for record in (first, last):
        values = [record["tasks"].get(task, {}).get(metric) for task in tasks]
        errors = [
            _distances(value, record["intervals"].get(task, {}).get(metric))
            for task, value in zip(tasks, values, strict=True)
        ]
        series.append(Series(f"step {record['step']:,}", range(len(tasks)), values, errors))
    if tasks:
        yield bar_plot(name, tasks, series, x_label=title(metric))


def _changed_most(tasks: Sequence[str], first: Record, last: Record, metric: str) -> list[str]:
    """Return the tasks that gained most, and those that lost most or gained least."""

    def gain(task: str) -> float:
        before = first["tasks"].get(task, {}).get(metric)
        return float(last["tasks"][task][metric] - (before if is_number(before) else 0.0))

    by_gain = sorted(tasks, key=gain, reverse=True)
    return [*by_gain[: _MOST_BARS // 2], *by_gain[-(_MOST_BARS // 2) :]]


def _rows(records: Sequence[Record]) -> Iterator[list[object]]:
    """Yield a row for each task and metric, with a cell for each record."""
    for task in [*sorted(records[-1]["tasks"]), OVERALL]:
        of_task = [
            record["overall"] if task == OVERALL else record["tasks"].get(task, {})
            for record in records
        ]
        for metric, value in of_task[-1].items():
            if is_number(value) and metric not in _NOT_FOLLOWED:
                cells = [
                    with_interval(scores.get(metric), record["intervals"].get(task, {}), metric)
                    for scores, record in zip(of_task, records, strict=True)
                ]
                yield ["mean over tasks" if task == OVERALL else task, metric, *cells]


def with_interval(value: Any, intervals: Mapping[str, Any], metric: str) -> str:
    """Return a metric, with its interval where it has one, as the text of a cell."""
    if not is_number(value):
        return ""
    if metric not in intervals:
        return f"{value:.3f}"
    return f"{value:.3f} ({intervals[metric]['low']:.3f} to {intervals[metric]['high']:.3f})"


def some_steps(steps: Sequence[int]) -> list[int]:
    """Return at most `_MOST_STEPS` of some steps: the first, the last, and some between."""
    if len(steps) <= _MOST_STEPS:
        return list(steps)
    places = np.linspace(0, len(steps) - 1, _MOST_STEPS).round().astype(int)
    return [steps[place] for place in places]
