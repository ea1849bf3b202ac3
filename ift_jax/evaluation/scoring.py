"""Scores of answers: exact match, baselines, and each task's own metrics, one apart from another.

A metric that raises costs no other metric its result: it is left out of the scores, and named among
the failures.
"""

import itertools
import math
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError
from ift_jax.evaluation.example_scores import example_scores
from ift_jax.evaluation.intervals import Interval, interval_of_mean, interval_of_scores
from ift_jax.evaluation.metric_values import is_number, plain
from ift_jax.evaluation.task_metrics import TaskMetrics
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.metrics import MetricCall, ModelOutput, exact_match, majority_baseline

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Scored(NamedTuple):
    """An answered example of a task.

    Attributes:
        task: The task's name.
        output: What the model gave.
        stopped: Whether a generated answer ended with a stop token or string.
    """

    task: str
    output: ModelOutput
    stopped: bool = False


class Failure(NamedTuple):
    """A metric that could not be computed.

    Attributes:
        task: The task's name.
        metric: The metric's name.
        error: What it raised, in one line.
        traceback: Where it was raised.
    """

    task: str
    metric: str
    error: str
    traceback: str

    def __str__(self) -> str:
        return f"task {self.task!r}, metric {self.metric!r}: {self.error}"


class TaskScores(NamedTuple):
    """The scores of the examples that are scored under one name.

    Attributes:
        values: The metrics by name, and "examples", their number.
        by_example: For each metric that is a mean over the examples, the score of each of them.
        failures: The metrics that could not be computed.
    """

    values: dict[str, Any]
    by_example: dict[str, list[float]]
    failures: list[Failure]


def score(
    mixture: Mixture,
    examples: Sequence[Scored],
    metrics: Mapping[str, TaskMetrics],
    stopped: Stopped = never,
) -> dict[str, Any] | None:
    """Score answers with the metrics of their tasks.

    A task of which only some examples have choices is scored as two: `<task> (choices)`, whose
    answers were ranked, and `<task> (free)`, whose answers were generated.

    Args:
        mixture: The tasks with their stores.
        examples: The answered examples.
        metrics: The own metrics of each task.
        stopped: Whether to give up before the next metric.

    Returns:
        None if it was stopped. Else `tasks`: name -> {"examples"; "exact_match", or "accuracy" if
        choices were ranked; "baseline", the score of giving every example the task's most common
        answer; "stopped", the share of generated answers that ended by themselves; the task's own
        metrics}. `overall`: the plain means over tasks; `clusters`: the same over the tasks of each
        cluster of the mixture (`cluster` of a task's source); `members`: their names. `groups`: for
        each data set with several tasks, such as one per template, the quartiles of exact match
        over them.
        `intervals`: name of a task, "overall" -> metric -> {"standard_error", "low", "high"}, the
        95% interval, for metrics that are means over examples. `failures`: for each metric that
        could not be computed, {"task", "metric", "error", "traceback"}. `by_example`: for each
        example, in their order, the metrics that have a score for it.
    """
    tasks: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[float]] = {}
    clusters: dict[str, list[str]] = {}
    failures: list[Failure] = []
    intervals: dict[str, dict[str, Any]] = {}
    by_example: list[dict[str, float]] = [{} for _ in examples]
    for name, store in zip(mixture.tasks, mixture.stores, strict=True):
        of_task = [i for i, example in enumerate(examples) if example.task == name]
        for part, of_part in _parts(name, examples, of_task).items():
            found = _score_part(part, [examples[i] for i in of_part], metrics[name], stopped)
            if found is None:
                return None
            tasks[part] = found.values
            failures += found.failures
            intervals[part] = {
                metric: interval_of_scores(scores)._asdict()
                for metric, scores in found.by_example.items()
                if len(scores) > 1
            }
            for metric, scores in found.by_example.items():
                for i, of_one in zip(of_part, scores, strict=True):
                    by_example[i][metric] = of_one
            if group := store.manifest.get("group"):
                groups.setdefault(group, []).append(_exact_match([examples[i] for i in of_part]))
            if cluster := store.manifest.get("cluster"):
                clusters.setdefault(cluster, []).append(part)
    quartiles = {group: _quartiles(scores) for group, scores in groups.items() if len(scores) > 1}
    return {
        "tasks": tasks,
        "overall": _overall(tasks.values()),
        "clusters": {
            cluster: {"tasks": len(parts), **_overall(tasks[part] for part in parts)}
            for cluster, parts in clusters.items()
        },
        "members": clusters,
        "groups": quartiles,
        "intervals": {**intervals, "overall": _overall_intervals(tasks, intervals)},
        "failures": [failure._asdict() for failure in failures],
        "by_example": by_example,
    }


def _parts(task: str, examples: Sequence[Scored], of_task: Sequence[int]) -> dict[str, list[int]]:
    """Return the examples of a task, by index, under the names that they are scored under."""
    ranked = [i for i in of_task if examples[i].output.is_choice]
    free = [i for i in of_task if not examples[i].output.is_choice]
    if ranked and free:
        return {f"{task} (choices)": ranked, f"{task} (free)": free}
    return {task: list(of_task)} if of_task else {}


def _exact_match(examples: Sequence[Scored]) -> float:
    references = [example.output.references for example in examples]
    answers = [example.output.answer for example in examples]
    return exact_match(references, answers)["exact_match"]


def _score_part(
    task: str, examples: Sequence[Scored], metrics: TaskMetrics, stopped: Stopped
) -> TaskScores | None:
    """Score the examples that are scored under one name; None if it is stopped."""
    is_ranked = examples[0].output.is_choice
    own_name = "accuracy" if is_ranked else "exact_match"
    matches = [_exact_match([example]) for example in examples]
    match = _exact_match(examples)
    values: dict[str, Any] = {
        "examples": len(examples),
        own_name: match,
        "baseline": majority_baseline([example.output.references for example in examples]),
    }
    by_example = {own_name: matches}
    if not is_ranked:
        by_example["stopped"] = [float(example.stopped) for example in examples]
        values["stopped"] = sum(by_example["stopped"]) / len(examples)
    failures = []
    for call in metrics.calls([example.output for example in examples]):
        if stopped():
            return None
        computed, failed = _computed(call)
        failures += [_failure(task, metric, error) for metric, error in failed.items()]
        if is_ranked and computed == {exact_match.__name__: match}:
            continue  # That is the accuracy.
        scores = example_scores(call, computed, len(examples))
        for key, value in computed.items():
            free_key = _free_key(values, call.name, key, value)
            values[free_key] = value
            if key in scores:
                by_example[free_key] = scores[key]
    return TaskScores(values, by_example, failures)


def _computed(call: MetricCall) -> tuple[dict[str, Any], dict[str, BaseException]]:
    """Compute a metric.

    Returns:
        Its plain values by name, where a single value gets the metric's own; and by the names of
        what failed, the metric itself or one of its values, the exception.
    """
    try:
        made = call.compute()
        items = list(made.items()) if isinstance(made, Mapping) else [(call.name, made)]
    except (Exception, SystemExit) as error:
        return {}, {call.name: error}
    values = {}
    failed: dict[str, BaseException] = {}
    for key, value in items:
        try:
            values[str(key)] = plain(value)
        except TypeError as error:
            failed[f"{call.name}/{key}"] = error
    return values, failed


def _free_key(scores: Mapping[str, Any], metric: str, key: str, value: Any) -> str:
    """Return the key of a value: with the metric's name before it where another value has it."""
    own_key = f"{metric}/{key}"
    numbered = (f"{own_key} {n}" for n in itertools.count(2))
    for free in itertools.chain((key, own_key), numbered):
        if free not in scores or (scores[free] == value and free != "examples"):
            return free
    raise AssertionError("the numbers end")


def _failure(task: str, metric: str, error: BaseException) -> Failure:
    """Return an exception of a user's code in one line, with the place that raised it."""
    message = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, UserError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
        if frames and not frames[-1].filename.startswith(_PACKAGE):
            message = f"{message} ({frames[-1].filename}:{frames[-1].lineno})"
    return Failure(task, metric, message, "".join(traceback.format_exception(error)))


def _overall(tasks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of each metric over the tasks where it is a finite number; else NaN."""
    tasks = list(tasks)
    overall: dict[str, Any] = {"examples": sum(scores["examples"] for scores in tasks)}
    for metric in sorted({metric for scores in tasks for metric in scores} - {"examples"}):
        numbers = [scores[metric] for scores in tasks if is_number(scores.get(metric))]
        finite = [number for number in numbers if math.isfinite(number)]
        if numbers:
            overall[metric] = sum(finite) / len(finite) if finite else math.nan
    return overall


def _overall_intervals(
    tasks: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the intervals of the means over tasks, where every task in a mean has one."""
    found = {}
    for metric in dict.fromkeys(metric for of_task in intervals.values() for metric in of_task):
        having = [task for task in tasks if is_number(tasks[task].get(metric))]
        if all(metric in intervals[task] for task in having):
            of_tasks = [Interval(**intervals[task][metric]) for task in having]
            values = [float(tasks[task][metric]) for task in having]
            found[metric] = interval_of_mean(values, of_tasks)._asdict()
    return found


def _quartiles(scores: Sequence[float]) -> dict[str, Any]:
    lower, median, upper = np.percentile(scores, (25, 50, 75)).tolist()
    return {"lower": lower, "median": median, "upper": upper, "tasks": len(scores)}
