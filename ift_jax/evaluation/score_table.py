"""The scores of an evaluation as lines of text that fit the terminal."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import counted
from ift_jax.evaluation.metric_values import is_number
from ift_jax.evaluation.scoring import Failure

_HEADS = {
    "exact_match": "exact match",
    "accuracy": "accuracy of choice",
    "baseline": "commonest answer",
    "rouge_l": "ROUGE-L",
}
_FIRST = ("exact_match", "accuracy", "baseline")  # The columns before those of other metrics.
# The number of examples has a place of its own.
_NO_COLUMN = ("examples", "stopped", "tasks")
_DEFAULT_WIDTH = 120  # Where output goes to a file.
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
        text = f"{value:.3f}" if abs(value) < 1e6 else f"{value:.3g}"
        interval = self.intervals.get(key)
        if interval is None or not math.isfinite(value):
            return text
        return f"{text} ±{(interval['high'] - interval['low']) / 2:.3f}"


def table(heading: str, result: Mapping[str, Any], width: int = 0) -> list[str]:
    """Return scores as lines: a line per task, per cluster, the means, then data sets.

    Means over examples have half the width of their 95% interval beside them. Every metric that is
    a number in some task has a column. Columns that do not fit beside the others follow in a
    further block of lines, with the tasks that have them. Texts, and what could not be computed,
    have lines of their own.

    Args:
        heading: The first line.
        result: What `ift_jax.evaluation.evaluate.evaluate` returns.
        width: The most characters of a line; by default those of the terminal. A name and a single
            column may take more.
    """
    width = width or shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns
    rows = _rows(result)
    name_width = max(len(row.name) for row in rows)
    lines = [heading]
    for columns in _blocks(rows, width - name_width - len("    examples")):
        if lines[1:]:
            lines.append("")
        lines += _block_lines(rows, columns, name_width)
    for name, quartiles in sorted(result["groups"].items()):
        lines.append(
            f"  {name}: median {quartiles['median']:.3f}, quartiles {quartiles['lower']:.3f} to "
            f"{quartiles['upper']:.3f}, over {quartiles['tasks']} templates"
        )
    lines += _other_values(result["tasks"])
    lines += [f"  failed: {Failure(**failure)}" for failure in result["failures"]]
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


def _blocks(rows: Sequence[_Row], width: int) -> Iterator[list[str]]:
    """Yield the metrics of each block of columns."""
    keys = dict.fromkeys(
        key
        for row in rows[:-1]
        for key, value in row.scores.items()
        if is_number(value) and key not in (*_FIRST, *_NO_COLUMN)
    )
    first = [key for key in _FIRST if any(key in row.scores for row in rows)]
    block: list[str] = []
    left = width
    for key in (*first, *keys):
        needed = _column_width(rows, key) + 2
        if block and needed > left:
            yield block
            block = []
            left = width
        block.append(key)
        left -= needed
    yield block


def _column_width(rows: Sequence[_Row], key: str) -> int:
    return max(len(title(key)), *(len(row.cell(key)) for row in rows))


def title(key: str) -> str:
    """Return what a metric is called on a screen."""
    return _HEADS.get(key, key)


def _block_lines(rows: Sequence[_Row], columns: Sequence[str], name_width: int) -> list[str]:
    widths = [_column_width(rows, key) for key in columns]
    heads = [f"{title(key):>{width}}" for key, width in zip(columns, widths, strict=True)]
    lines = ["  ".join(("", f"{'task':<{name_width}}", "examples", *heads))]
    for row in rows:
        cells = [row.cell(key) for key in columns]
        if not any(cells) and columns:
            continue
        aligned = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        n_examples = row.scores["examples"]
        line = "  ".join(("", f"{row.name:<{name_width}}", f"{n_examples:>8}", *aligned))
        lines.append(line.rstrip())
    return lines


def _other_values(tasks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each value that is no number, and one for each mean that leaves some out."""
    not_finite: dict[str, int] = {}
    for name, scores in sorted(tasks.items()):
        for key, value in scores.items():
            if not is_number(value):
                yield f"  {name}: {key}: {_shortened(value)}"
            elif not math.isfinite(value):
                not_finite[key] = not_finite.get(key, 0) + 1
    for key, count in not_finite.items():
        if any(
            is_number(scores.get(key)) and math.isfinite(scores[key]) for scores in tasks.values()
        ):
            left_out = counted(count, "task")
            yield f"  the mean of {key} leaves out {left_out}, where it is not a finite number"


def _shortened(value: Any) -> str:
    """Return the beginning of a text, or what a list or dict holds."""
    if isinstance(value, str):
        text = " ".join(value.split())
        return text if len(text) <= _TEXT_WIDTH else text[: _TEXT_WIDTH - 3] + "..."
    if isinstance(value, list | dict):
        return f"{len(value)} values (see the scores as JSON)"
    return "none"
