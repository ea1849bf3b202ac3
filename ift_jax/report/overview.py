"""The top of a report: whether the model got better, before, during and after training."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import counted
from ift_jax.evaluation.metric_values import is_number
from ift_jax.evaluation.score_table import title
from ift_jax.report.page import Markup, element, joined, shown
from ift_jax.report.progress_sections import SETS, followed_metrics
from ift_jax.report.run_files import RunFiles

_LOSSES = {
    "eval_loss": "loss on unseen examples of the trained tasks",
    "heldout_loss": "loss on tasks that are never trained",
}
_NO_GOAL = ("stopped",)  # Says nothing of how good an answer is.


class Point(NamedTuple):
    """A value, when or of what, and the ends of its 95% interval where it has one."""

    step: int
    value: float
    low: float = math.nan
    high: float = math.nan
    source: str = ""  # What has the value, if not the run's model.

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


class Measure(NamedTuple):
    """One number that was followed through a run.

    Attributes:
        name: What it is.
        points: What it was at some steps, in their order; at least one.
        is_loss: Whether less is better; of anything else more is, as for `train.best_metric`.
    """

    name: str
    points: list[Point]
    is_loss: bool


def overview(runs: Sequence[RunFiles]) -> Markup:
    """Return how far each run is, and what each measure was before, during and after training."""
    is_single = len(runs) == 1
    status = [element("p", _status(run, is_single)) for run in runs]
    of_name: dict[str, list[Markup]] = {}  # The same measure of several runs one below another.
    for run in runs:
        for measure in measures(run):
            name = measure.name if is_single else f"{run.name}: {measure.name}"
            of_name.setdefault(measure.name, []).append(_row(name, measure))
    rows = [row for same in of_name.values() for row in same]
    if not rows:
        return joined([*status, element("p", "Nothing is evaluated yet.", class_="note")])
    heads = ("before", "halfway", "latest", "change")
    head = element("thead", element("tr", *(element("th", text) for text in heads)))
    note = (
        "Below each score is its 95% interval, and a change is clear if the interval of the "
        "difference leaves out 0. Losses have no interval. Nor have scores that are not a mean "
        "over examples, so that their change may be chance."
    )
    return element(
        "div",
        joined(status),
        element("table", head, element("tbody", *rows)),
        element("p", note, class_="note"),
        class_="overview",
    )


def _status(run: RunFiles, is_single: bool) -> str:
    last_step = max((record["step"] for record in run.metrics), default=0)
    of = f" of {run.config['train.steps']:,}" if run.config.get("train.steps") else ""
    state = "complete" if run.record.finished_at is not None else "not complete yet"
    return f"{'Step' if is_single else f'{run.name}: step'} {last_step:,}{of}, {state}."


def measures(run: RunFiles) -> list[Measure]:
    """Return what was measured on unseen examples: scores first, then losses."""
    return [*_scores(run), *_final_scores(run), *_losses(run)]


def _scores(run: RunFiles) -> Iterator[Measure]:
    for which, of_what in SETS.items():
        records = [record for record in run.evaluations if record["which"] == which]
        for metric in followed_metrics(records[-1]) if records else ():
            if metric in _NO_GOAL:
                continue
            points = [
                _point(record["step"], record["overall"][metric], record["intervals"], metric)
                for record in records
                if is_number(record["overall"].get(metric))
            ]
            name = _name(title(metric), of_what, _n_examples(records[-1], metric))
            yield Measure(name, points, metric.endswith("loss"))


def _final_scores(run: RunFiles) -> Iterator[Measure]:
    """Yield the scores of the evaluation at the end, which is of more examples."""
    step = run.record.finished_at
    if step is None:
        return
    for of_what, part in run.scores.items():
        for metric in followed_metrics(part):
            if metric not in _NO_GOAL:
                point = _point(step, part["overall"][metric], part.get("intervals", {}), metric)
                points = [*_baseline(step, metric, part["overall"]), point]
                n_examples = _n_examples(part, metric)
                name = _name(f"{title(metric)} at the end", of_what, n_examples)
                yield Measure(name, points, metric.endswith("loss"))


def _n_examples(record: Mapping[str, Any], metric: str) -> int:
    """Return the number of examples behind a mean over tasks: not every task has every metric."""
    scores = [of_task for of_task in record["tasks"].values() if is_number(of_task.get(metric))]
    return sum(of_task["examples"] for of_task in scores)


def _name(metric: str, of_what: str, n_examples: int) -> str:
    return f"{metric}: {of_what[:1].lower()}{of_what[1:]} ({counted(n_examples, 'example')})"


def _baseline(step: int, metric: str, overall: Mapping[str, Any]) -> Iterator[Point]:
    """Yield what the commonest answer of each task would have, to compare exact match with."""
    value = overall.get("baseline")
    if metric == "exact_match" and is_number(value):
        yield Point(step, value, value, value, source="commonest answer")


def _point(step: int, value: float, intervals: Mapping[str, Any], metric: str) -> Point:
    interval = intervals.get("overall", {}).get(metric)
    if interval is None:
        return Point(step, value)
    return Point(step, value, interval["low"], interval["high"])


def _losses(run: RunFiles) -> Iterator[Measure]:
    for name, what in _LOSSES.items():
        points = [
            Point(step, value)
            for step, value in zip(*run.points(name), strict=True)
            if value is not None
        ]
        if points:
            yield Measure(what, points, is_loss=True)


def _row(name: str, measure: Measure) -> Markup:
    """Return the name, and below it the first value, one from the middle, the last, the change."""
    first, last = measure.points[0], measure.points[-1]
    middle = (first.step + last.step) / 2
    halfway = min(measure.points[1:-1], key=lambda point: abs(point.step - middle), default=None)
    cells = [
        _cell(first) if first is not last else "",
        _cell(halfway) if halfway else "",
        _cell(last),
        _change(measure, first, last) if first is not last else "",
    ]
    return joined(
        [
            element("tr", element("td", name, colspan=str(len(cells)), class_="measure")),
            element("tr", *(element("td", cell) for cell in cells)),
        ]
    )


def _cell(point: Point) -> Markup:
    parts: list[object] = [element("strong", _number(point.value))]
    if point.has_interval and point.low < point.high:
        parts.append(element("small", f"{point.low:.3f} to {point.high:.3f}"))
    parts.append(element("small", point.source or f"step {point.step:,}"))
    return joined(parts)


def _number(value: float) -> object:
    return f"{value:.3f}" if abs(value) < 1000 else shown(float(value))


def _change(measure: Measure, first: Point, last: Point) -> Markup:
    """Return the difference, and what it means."""
    difference = last.value - first.value
    has_intervals = first.has_interval and last.has_interval
    is_better = (difference < 0) == measure.is_loss
    if difference == 0:
        verdict, kind = "no change", ""
    elif not has_intervals and not measure.is_loss:  # Such as an F1 score: it may be chance.
        verdict, kind = "no interval", ""
    elif has_intervals and not _is_clear(first, last):
        verdict, kind = "not clear", ""
    elif first.source:
        verdict, kind = ("above it", "better") if is_better else ("below it", "worse")
    else:
        verdict, kind = ("\u2713 better", "better") if is_better else ("\u2717 worse", "worse")
    parts: list[object] = [
        element("strong", verdict, class_=kind),
        element("small", f"{difference:+.3f}"),
    ]
    best = (min if measure.is_loss else max)(measure.points, key=lambda point: point.value)
    if best.value not in (first.value, last.value):
        parts.append(element("small", f"best {_number(best.value)} at step {best.step:,}"))
    return joined(parts)


def _is_clear(first: Point, last: Point) -> bool:
    """Whether the 95% interval of the difference of two means leaves out 0.

    The interval is that of independent means (MOVER, Zou and Donner 2008). The answers to the same
    examples are rather alike than not, so it is too wide if anything.
    """
    low, high = sorted((first, last), key=lambda point: point.value)
    distance = math.hypot(low.high - low.value, high.value - high.low)
    return high.value - low.value > distance
