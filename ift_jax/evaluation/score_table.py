"""The scores of an evaluation as lines of text that fit the terminal."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.errors import counted
from ift_jax.evaluation.metric_values import is_number, number_names
from ift_jax.evaluation.scoring import Failure
from ift_jax.io.text_tables import MOST_LISTED, Column, output_width, table_lines, wrapped

# What the scores of a mixture are of; `evaluation.json` has them by these names.
SET_TITLES = {
    "eval": "unseen examples of the trained tasks",
    "heldout": "held-out tasks, never trained",
}
_HEADS = {
    "exact_match": "exact match",
    "accuracy": "accuracy of choice",
    "baseline": "commonest answer",
    "rouge_l": "ROUGE-L",
}
_FIRST = ("exact_match", "accuracy", "baseline")  # The columns before those of other metrics.
# The number of examples has a place of its own.
_NO_COLUMN = ("examples", "stopped", "tasks")
_EXTREMES = 5  # If tasks are many, so many with the lowest scores are named, and the highest.
_QUANTILES = {"lower quartile": 0.25, "median of tasks": 0.5, "upper quartile": 0.75}
_MOST_LINES = 10  # If tasks are many, so many clusters, texts, and failures are shown.
_TEXT_WIDTH = 60  # A metric's value that is a text is cut here.
_MEAN = "mean over tasks"


class _Row(NamedTuple):
    """A line of the table."""

    name: str
    scores: Mapping[str, Any]
    intervals: Mapping[str, Mapping[str, float]]

    def cell(self, key: str) -> str:
        """Return a metric, with half the width of its 95% interval where it has one."""
        value = self.scores.get(key)
        if not is_number(value):
            return ""
        if isinstance(value, int):
            return str(value)
        text = score_text(value)
        interval = self.intervals.get(key)
        if interval is None or not math.isfinite(value):
            return text
        if interval["high"] == interval["low"]:
            return text  # A constant, such as chance.
        return f"{text} ±{(interval['high'] - interval['low']) / 2:.3f}"


def table(
    heading: str, result: Mapping[str, Any], width: int = 0, *, list_all: bool = False
) -> list[str]:
    """Return scores as lines: a line per task, per cluster, the means, then data sets.

    Means over examples have half the width of their 95% interval beside them. Every metric that is
    a number in some task has a column. Columns that do not fit beside the others follow in a
    further block of lines, with the tasks that have them. Texts, and what could not be computed,
    have lines of their own. Of many tasks, there are lines for the quartiles over tasks and for
    those with the lowest and the highest scores.

    Args:
        heading: The first line.
        result: What `ift_jax.evaluation.evaluate.evaluate` returns.
        width: The most characters of a line; by default those of the terminal.
        list_all: Whether every task has a line, however many there are.
    """
    width = width or output_width()
    tasks = result["tasks"]
    rows = _rows(result)
    few = list_all or len(tasks) <= MOST_LISTED
    lines = [heading, *_lines(rows if few else _summary_rows(rows, tasks), _keys(rows), width)]
    groups = [
        f"{name}: median {quartiles['median']:.3f}, quartiles {quartiles['lower']:.3f} to "
        f"{quartiles['upper']:.3f}, over {quartiles['tasks']} templates"
        for name, quartiles in sorted(result["groups"].items())
    ]
    failures = [f"failed: {Failure(**failure)}" for failure in result["failures"]]
    others = list(_other_values(tasks))
    for texts in (groups, others, failures):
        shown = texts if few else texts[:_MOST_LINES]
        for text in shown:
            lines += wrapped(text, width, indent=2)
        if len(shown) < len(texts):
            lines.append(f"  and {len(texts) - len(shown):,} more like these")
    lines += [f"  {line}" for line in _means_that_leave_out(tasks)]
    if not few:
        lines += wrapped(f"{counted(len(tasks), 'task')}; ift eval --all lists each", width, 2)
    return lines


def _rows(result: Mapping[str, Any]) -> list[_Row]:
    """Return the tasks, the clusters if there are several, and the means."""
    intervals = result.get("intervals", {})
    clusters = result.get("clusters", {})
    rows = [
        _Row(name, scores, intervals.get(name, {}))
        for name, scores in sorted(result["tasks"].items())
    ]
    if len(clusters) > 1:
        rows += [
            _Row(f"{name} ({counted(scores['tasks'], 'task')})", scores, {})
            for name, scores in sorted(clusters.items())
        ]
    return [*rows, _Row(_MEAN, result["overall"], intervals.get("overall", {}))]


def _summary_rows(rows: Sequence[_Row], tasks: Mapping[str, Any]) -> list[_Row]:
    """Return the lowest and the highest tasks, the largest clusters, quartiles, and the means."""
    of_tasks = [row for row in rows if row.name in tasks]
    clusters = rows[len(of_tasks) : -1]
    clusters = sorted(clusters, key=lambda row: (-row.scores["tasks"], row.name))
    keys = _keys(rows)
    ranked = [row for row in of_tasks if keys and _finite(row, keys[0])]
    ranked.sort(key=lambda row: (row.scores[keys[0]], row.name))
    extremes = dict.fromkeys(row.name for row in (*ranked[:_EXTREMES], *ranked[-_EXTREMES:]))
    return [
        *(row for row in ranked if row.name in extremes),
        *clusters[:_MOST_LINES],
        *(_quantile_row(name, q, of_tasks, keys) for name, q in _QUANTILES.items()),
        rows[-1],
    ]


def _quantile_row(name: str, q: float, rows: Sequence[_Row], keys: Sequence[str]) -> _Row:
    """Return a quantile of each column over the tasks that have a finite number in it."""
    scores: dict[str, Any] = {"examples": int(np.quantile([r.scores["examples"] for r in rows], q))}
    for key in keys:
        if values := [row.scores[key] for row in rows if _finite(row, key)]:
            scores[key] = float(np.quantile(values, q))
    return _Row(name, scores, {})


def _finite(row: _Row, key: str) -> bool:
    value = row.scores.get(key)
    return is_number(value) and math.isfinite(value)


def _keys(rows: Sequence[_Row]) -> list[str]:
    """Return the metrics that have a column: every one that is a number in some task."""
    others = number_names((row.scores for row in rows[:-1]), (*_FIRST, *_NO_COLUMN))
    return [*(key for key in _FIRST if any(key in row.scores for row in rows)), *others]


def _lines(rows: Sequence[_Row], keys: Sequence[str], width: int) -> list[str]:
    names = Column("task", [row.name for row in rows], left=True)
    examples = Column("examples", [str(row.scores["examples"]) for row in rows])
    columns = [Column(title(key), [row.cell(key) for row in rows]) for key in keys]
    return table_lines([names, examples], columns, width)


def score_text(value: float) -> str:
    """Return a score with three decimals, or three digits if it is large."""
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.3g}"


def title(key: str) -> str:
    """Return what a metric is called on a screen."""
    return _HEADS.get(key, key)


def _other_values(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each value that is no number."""
    for name, scores in sorted(tasks.items()):
        for key, value in scores.items():
            if not is_number(value):
                yield f"{name}: {key}: {_shortened(value)}"


def _means_that_leave_out(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each mean that leaves out tasks."""
    not_finite = Counter(
        key
        for scores in tasks.values()
        for key, value in scores.items()
        if is_number(value) and not math.isfinite(value)
    )
    for key, count in not_finite.items():
        if any(
            is_number(scores.get(key)) and math.isfinite(scores[key]) for scores in tasks.values()
        ):
            left_out = counted(count, "task")
            yield f"the mean of {key} leaves out {left_out}, where it is not a finite number"


def gain_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield how far the mean over tasks is above what needs no model, with its 95% interval.

    That is the commonest answer of each task and, where the tasks have a metric of this name, the
    "chance" among options.

    Args:
        result: What `ift_jax.evaluation.evaluate.evaluate` returns.
    """
    tasks = result["tasks"].values()
    for metric in ("exact_match", "accuracy"):
        for reference, name in (("baseline", "the commonest answer"), ("chance", "chance")):
            if not tasks or not all(metric in each and reference in each for each in tasks):
                continue
            overall = result["overall"]
            gain = overall[metric] - overall[reference]
            interval = result["intervals"]["overall"].get(metric)
            ends = interval and (interval["low"], interval["high"])
            shown = f" ±{(ends[1] - ends[0]) / 2:.3f}" if ends else ""
            yield f"  gain over {name} ({overall[reference]:.3f}): {gain:+.3f}{shown}"


def _shortened(value: Any) -> str:
    """Return the beginning of a text, or what a list or dict holds."""
    if isinstance(value, str):
        text = " ".join(value.split())
        return text if len(text) <= _TEXT_WIDTH else text[: _TEXT_WIDTH - 3] + "..."
    if isinstance(value, list | dict):
        return f"{len(value)} values (see the scores as JSON)"
    return "none"
