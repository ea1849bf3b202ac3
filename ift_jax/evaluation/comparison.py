"""Compares the answers of two models, or of several seeds of each, to the same examples."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.errors import UserError, counted
from ift_jax.evaluation.paired_tests import Interval, McNemar, mcnemar, mean_interval
from ift_jax.evaluation.recorded_answers import Key, RecordedAnswers
from ift_jax.io.text_tables import Column, output_width, table_lines

RIGHT = "exact_match"  # The metric whose scores are right or wrong, which McNemar's test takes.
_MOST_TASKS = 30  # Lines of tasks on a screen; the JSON has all.

TaskScores = Mapping[str, Mapping[Key, float]]


@dataclasses.dataclass(frozen=True)
class Group:
    """One model, or the same recipe trained with several seeds.

    Attributes:
        name: What tables call it.
        runs: The answers of each seed.
    """

    name: str
    runs: Sequence[RecordedAnswers]

    def scores(self, metric: str) -> dict[str, dict[Key, float]]:
        """Return the mean over seeds of each example's score, by task.

        Only examples that every seed has answered are in it.
        """
        of_runs = [run.scores.get(metric, {}) for run in self.runs]
        shared_tasks = [task for task in of_runs[0] if all(task in run for run in of_runs)]
        means = {}
        for task in shared_tasks:
            keys = [key for key in of_runs[0][task] if all(key in run[task] for run in of_runs)]
            means[task] = {key: float(np.mean([run[task][key] for run in of_runs])) for key in keys}
        return {task: scores for task, scores in means.items() if scores}

    def seed_means(self, metric: str, tasks: Mapping[str, Sequence[Key]]) -> list[float]:
        """Return each seed's mean over tasks of the given examples."""
        return [
            float(
                np.mean(
                    [
                        np.mean([run.scores[metric][task][key] for key in tasks[task]])
                        for task in tasks
                    ]
                )
            )
            for run in self.runs
        ]


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much higher the second score is than the first, over some examples.

    Attributes:
        examples: How many examples both have answered.
        first: The mean score of the first.
        second: The mean score of the second.
        interval: The 95% interval of second - first, by the paired bootstrap.
        test: McNemar's test of right and wrong answers; None for other metrics and several seeds.
    """

    examples: int
    first: float
    second: float
    interval: Interval
    test: McNemar | None

    @property
    def verdict(self) -> str:
        """What the interval shows."""
        if not self.interval.excludes_zero:
            return "no difference shown"
        return "higher" if self.interval.lower > 0 else "lower"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **dataclasses.asdict(self),
            "interval": list(self.interval),
            "test": self.test and self.test._asdict(),
            "verdict": self.verdict,
        }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A metric of two groups.

    Attributes:
        metric: The metric's name.
        names: What the two are called.
        seed_means: The mean over tasks of each seed of the first and of the second.
        overall: The difference of the means over tasks.
        tasks: The difference in each task.
        left_out: How many examples only one of the two has answered.
    """

    metric: str
    names: tuple[str, str]
    seed_means: tuple[list[float], list[float]]
    overall: Difference
    tasks: dict[str, Difference]
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "metric": self.metric,
            "first": self.names[0],
            "second": self.names[1],
            "seed_means": list(self.seed_means),
            "left_out": self.left_out,
            "overall": self.overall.as_json(),
            "tasks": {task: difference.as_json() for task, difference in self.tasks.items()},
        }


def shared_metrics(groups: Sequence[Group]) -> list[str]:
    """Return the metrics that every run of every group has, `RIGHT` first."""
    runs = [run.scores for group in groups for run in group.runs]
    return [metric for metric in runs[0] if all(metric in run for run in runs)]


def compare(first: Group, second: Group, metric: str, seed: int = 0) -> Comparison:
    """Compare two groups on the examples that both have answered.

    Args:
        first: What to compare with, such as the untuned model.
        second: What may be better.
        metric: A metric of both.
        seed: The seed of the bootstrap.

    Raises:
        UserError: They have answered no example in common.
    """
    before, after = first.scores(metric), second.scores(metric)
    shared = {
        task: [key for key in before[task] if key in after[task]]
        for task in before
        if task in after
    }
    shared = {task: keys for task, keys in shared.items() if keys}
    if not shared:
        raise UserError(f"{first.name} and {second.name} have answered no example in common")
    answered = sum(len(keys) for scores in (before, after) for keys in scores.values())
    single = len(first.runs) == len(second.runs) == 1
    tested = single and metric == RIGHT
    pairs = {
        task: (
            np.array([before[task][key] for key in keys]),
            np.array([after[task][key] for key in keys]),
        )
        for task, keys in shared.items()
    }
    return Comparison(
        metric=metric,
        names=(first.name, second.name),
        seed_means=(first.seed_means(metric, shared), second.seed_means(metric, shared)),
        overall=_difference(pairs, tested, seed),
        tasks={task: _difference({task: pair}, tested, seed) for task, pair in pairs.items()},
        left_out=answered - 2 * sum(map(len, shared.values())),
    )


def _difference(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], tested: bool, seed: int
) -> Difference:
    """Return the difference of the means over tasks.

    Args:
        pairs: For each task, the scores `[examples]` of the first and of the second.
        tested: Whether the scores are right or wrong answers, for McNemar's test.
        seed: The seed of the bootstrap.
    """
    test = None
    if tested:
        first, second = (np.concatenate(side) > 0 for side in zip(*pairs.values(), strict=True))
        test = mcnemar(first, second)
    return Difference(
        examples=sum(len(first) for first, _ in pairs.values()),
        first=float(np.mean([first.mean() for first, _ in pairs.values()])),
        second=float(np.mean([second.mean() for _, second in pairs.values()])),
        interval=mean_interval(
            {task: second - first for task, (first, second) in pairs.items()}, seed
        ),
        test=test,
    )


def table(comparison: Comparison, width: int = 0) -> Iterator[str]:
    """Yield a comparison as lines: the means, what is shown, and the tasks that changed most.

    Args:
        comparison: The comparison.
        width: The most characters of a line; by default those of the terminal.
    """
    width = width or output_width()
    overall = comparison.overall
    tasks = comparison.tasks
    yield (
        f"{comparison.metric}: {counted(len(tasks), 'task')}, "
        f"{counted(overall.examples, 'example')}"
    )
    for name, means in zip(comparison.names, comparison.seed_means, strict=True):
        spread = f", standard deviation {np.std(means, ddof=1):.3f}" if len(means) > 1 else ""
        seeds = f"  ({len(means)} seeds{spread})" if len(means) > 1 else ""
        yield f"  {np.mean(means):.3f}  {name}{seeds}"
    interval = f"[{overall.interval.lower:+.3f}, {overall.interval.upper:+.3f}]"
    yield f"  {overall.second - overall.first:+.3f}  95% {interval}: {overall.verdict}"
    if overall.test is not None:
        yield (
            f"  McNemar's test: right in the first alone {overall.test.only_first:,}, in the "
            f"second alone {overall.test.only_second:,}; p = {overall.test.p_value:.2g}"
        )
    if comparison.left_out:
        yield f"  left out: {counted(comparison.left_out, 'example')} that only one has answered"
    if len(tasks) > 1:
        yield ""
        yield from _task_lines(tasks, width)


def _task_lines(tasks: Mapping[str, Difference], width: int) -> Iterator[str]:
    """Yield a line for each of the tasks with the largest differences."""

    def size(item: tuple[str, Difference]) -> tuple[float, str]:
        name, difference = item
        return -abs(difference.second - difference.first), name

    shown = sorted(tasks.items(), key=size)[:_MOST_TASKS]
    differences = [difference for _, difference in shown]
    intervals = [difference.interval for difference in differences]
    columns = [
        Column("examples", [str(each.examples) for each in differences]),
        Column("first", [f"{each.first:.3f}" for each in differences]),
        Column("second", [f"{each.second:.3f}" for each in differences]),
        Column("change", [f"{each.second - each.first:+.3f}" for each in differences]),
        Column("95% interval", [f"[{each.lower:+.3f}, {each.upper:+.3f}]" for each in intervals]),
    ]
    names = Column("task", [name for name, _ in shown], left=True)
    yield from table_lines([names], columns, width)
    if len(shown) < len(tasks):
        yield f"  {len(tasks) - len(shown):,} more tasks changed less; --output has all of them"
