"""In-context learning against tuning: the untuned model zero-shot and k-shot, the tuned zero-shot.

This is the figure of FLAN (arXiv:2109.01652) and Super-NaturalInstructions (arXiv:2204.07705): the
same questions of held-out tasks, by task and by cluster.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.evaluation.evaluate_model import evaluate_model
from ift_jax.evaluation.few_shot_config import few_shot_config
from ift_jax.evaluation.intervals import Interval, interval_of_mean, interval_of_scores
from ift_jax.evaluation.paired_tests import mean_interval
from ift_jax.io.stop_signals import StopSignals

OVERALL = "mean over tasks"
_RIGHT = ("accuracy", "exact_match")  # The metric of a task whose choices are ranked, or of others.


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to answer: what it is called, and its evaluation.

    Attributes:
        name: Such as "untuned, 5-shot".
        result: What `evaluate_model` returns, with the tasks' own names.
    """

    name: str
    result: Mapping[str, Any]


def answer_in_three_ways(
    config: Config,
    tuned: ModelSource,
    untuned: ModelSource,
    which: str,
    shots: int,
    signals: StopSignals,
    output: str | None,
    told: Callable[[str, Mapping[str, Any]], None],
) -> list[Way]:
    """Ask two models the same questions.

    The untuned model reads plain text, as in `ift_jax.evaluation.few_shot_config`, with no solved
    example or with `shots`; the tuned one reads its own format.

    Args:
        config: The tuned run's config.
        tuned: The tuned model.
        untuned: The model that it is compared with.
        which: "eval" or "heldout".
        shots: Solved examples, one of `ift_jax.config.systems.SHOTS`.
        signals: End an evaluation between two batches.
        output: A file beside which unfinished answers are kept.
        told: Called with the name and the result of each way.

    Returns:
        The ways, those without examples first; the last one is incomplete if a signal came.
    """
    ways: list[Way] = []
    tokenizer = untuned.tokenizer_config or config.tokenizer
    for name, source, k in (
        ("untuned, 0-shot", untuned, 0),
        (f"untuned, {shots}-shot", untuned, shots),
        ("tuned, 0-shot", tuned, None),
    ):
        asked = config
        if k is not None:
            asked = few_shot_config(config, untuned.config, tokenizer, which, k)
        result = evaluate_model(asked, source, which, signals, output)
        if k is not None:
            result = _own_names(result, f"_{k}_shot")
        ways.append(Way(name, result))
        told(name, result)
        if not result["complete"]:
            break
    return ways


def _own_names(result: dict[str, Any], suffix: str) -> dict[str, Any]:
    """Return a result with the names of the tasks in place of those of their twins."""

    def own(name: str) -> str:
        return name.replace(suffix, "", 1) if suffix in name else name

    answers = [answer | {"task": own(answer["task"])} for answer in result["answers"]]
    if not result["complete"]:
        return result | {"answers": answers}
    tasks = {own(name): scores for name, scores in result["tasks"].items()}
    intervals = {own(name): of_task for name, of_task in result["intervals"].items()}
    members = {cluster: list(map(own, names)) for cluster, names in result["members"].items()}
    return result | {
        "answers": answers,
        "tasks": tasks,
        "intervals": intervals,
        "members": members,
    }


@dataclasses.dataclass(frozen=True)
class Line:
    """A task, a cluster, or the mean over tasks.

    Attributes:
        name: Its name.
        n_tasks: Of a cluster or the mean; 1 for a task.
        n_examples: Examples that all ways have answered.
        means: The score of each way.
        intervals: The 95% interval of each: Wilson's of a task, MOVER's of a mean over tasks.
        gains: The tuned model's score less that of each other way, with the interval of the paired
            bootstrap.
    """

    name: str
    n_tasks: int
    n_examples: int
    means: list[float]
    intervals: list[Interval]
    gains: list[tuple[float, float, float]]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self) | {"intervals": [each._asdict() for each in self.intervals]}


def compared(ways: Sequence[Way], metric: str = "", seed: int = 0) -> list[Line]:
    """Return the scores of all ways by task, by cluster, and over all tasks.

    Args:
        ways: Complete evaluations of the same mixture.
        metric: A metric that is a mean over examples; by default accuracy where choices are ranked,
            and exact match elsewhere.
        seed: The seed of the bootstrap.

    Raises:
        UserError: No task has scores of all ways.
    """
    scores = [_by_example(way.result, metric) for way in ways]
    tasks: dict[str, list[np.ndarray]] = {}
    for task in scores[0]:
        shared = [key for key in scores[0][task] if all(key in s.get(task, {}) for s in scores)]
        if len(shared) > 1:
            tasks[task] = [np.array([s[task][key] for key in shared]) for s in scores]
    if not tasks:
        asked = f"metric {metric!r}" if metric else "the same examples"
        raise UserError(f"no task has scores of {asked} in all of: {_names(ways)}")
    clusters = {
        cluster: [name for name in names if name in tasks]
        for cluster, names in ways[-1].result["members"].items()
    }
    lines = [_line(name, [of_task], seed) for name, of_task in sorted(tasks.items())]
    lines += [
        _line(name, [tasks[member] for member in members], seed)
        for name, members in sorted(clusters.items())
        if len(members) > 1  # A single task has a line already.
    ]
    return [*lines, _line(OVERALL, list(tasks.values()), seed)]


def _names(ways: Sequence[Way]) -> str:
    return "; ".join(way.name for way in ways)


def _by_example(result: Mapping[str, Any], metric: str) -> dict[str, dict[tuple[int, int], float]]:
    """Return the score of each example: task -> (index, which of those with it) -> score."""
    found: dict[str, dict[tuple[int, int], float]] = {}
    seen: dict[tuple[str, int], int] = {}
    for answer in result["answers"]:
        place = answer["task"], answer["index"]
        key = answer["index"], seen.get(place, 0)
        seen[place] = key[1] + 1
        given = answer["metrics"]
        names = [metric] if metric else _RIGHT
        value = next((given[name] for name in names if given.get(name) is not None), None)
        if value is not None:
            found.setdefault(answer["task"], {})[key] = float(value)
    return found


def _line(name: str, tasks: Sequence[Sequence[np.ndarray]], seed: int) -> Line:
    """Return the line of some tasks, each with the scores `[examples]` of every way."""
    n_ways = len(tasks[0])
    means = [[float(of_task[way].mean()) for of_task in tasks] for way in range(n_ways)]
    intervals = [
        interval_of_mean(means[way], [interval_of_scores(t[way].tolist()) for t in tasks])
        for way in range(n_ways)
    ]
    gains = []
    for way in range(n_ways - 1):
        differences = {str(k): of_task[-1] - of_task[way] for k, of_task in enumerate(tasks)}
        ends = mean_interval(differences, seed)
        gain = float(np.mean([difference.mean() for difference in differences.values()]))
        gains.append((gain, ends.lower, ends.upper))
    overall = [float(np.mean(of_way)) for of_way in means]
    n_examples = sum(len(of_task[0]) for of_task in tasks)
    return Line(name, len(tasks), n_examples, overall, intervals, gains)
