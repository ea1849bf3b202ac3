"""What the runs of a sweep scored: means over seeds with intervals, and what settings change."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.evaluation.metric_values import is_number
from ift_jax.evaluation.score_table import SET_TITLES
from ift_jax.io.json_reader import read_json_object
from ift_jax.report.run_files import EVALUATION_FILE, METRICS_FILE, read_lines
from ift_jax.sweep.settings import Setting
from ift_jax.training import goodput

SECONDS = "seconds"
LOSSES = ("eval_loss", "heldout_loss", "nll")
_NO_SCORES = ("examples", "tasks")
_LEVEL = 0.95


class RunScores(NamedTuple):
    """What one run scored.

    Attributes:
        setting: The run's setting.
        values: Metric -> value, such as "heldout/exact_match" (the mean over tasks),
            "heldout/reading/exact_match" (of a cluster), "eval_loss" and "seconds".
        intervals: The 95% intervals over examples, of the metrics that have one.
    """

    setting: Setting
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


def read_scores(setting: Setting, workdir: str) -> RunScores:
    """Read what the run in a workdir scored.

    Raises:
        UserError: A file is not what a run writes.
    """
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    path = os.path.join(workdir, EVALUATION_FILE)
    found = read_json_object(path) if os.path.exists(path) else {}
    for which, of_what in SET_TITLES.items():
        part: Mapping[str, Any] = found.get(of_what, {})
        values |= _scores(f"{which}/", part.get("overall", {}))
        for metric, ends in part.get("intervals", {}).get("overall", {}).items():
            intervals[f"{which}/{metric}"] = (ends["low"], ends["high"])
        for cluster, scores in part.get("clusters", {}).items():
            values |= _scores(f"{which}/{cluster}/", scores)
    for record in read_lines(os.path.join(workdir, METRICS_FILE)):
        values |= {name: record[name] for name in LOSSES if is_number(record.get(name))}
    for record in read_lines(os.path.join(workdir, goodput.FILE)):
        values[SECONDS] = sum(record["seconds"].values())
    return RunScores(setting, values, intervals)


def _scores(prefix: str, scores: Mapping[str, Any]) -> dict[str, float]:
    return {
        prefix + name: float(value)
        for name, value in scores.items()
        if name not in _NO_SCORES and is_number(value)
    }


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds, and how sure it is.

    Attributes:
        mean: The mean.
        low: The lower end of the 95% interval; equal to the mean where nothing tells it.
        high: The upper end.
        n: The number of seeds.
    """

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean":
        """Return the mean of some runs, with Student's interval (n - 1 degrees of freedom).

        It holds all that differs between seeds: the order, the weights at the start, the phrasings
        that are drawn, and the subset of tasks where there is one.
        """
        mean = float(np.mean(values))
        n = len(values)
        if n < 2:
            return cls(mean, mean, mean, n)
        from scipy.stats import t  # On use: it takes a third of a second to import.

        half = float(t.ppf((1 + _LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
        return cls(mean, mean - half, mean + half, n)

    @property
    def text(self) -> str:
        """The mean with half the width of its interval."""
        if self.low == self.high:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ±{(self.high - self.low) / 2:.3f}"


@dataclasses.dataclass(frozen=True)
class SettingScores:
    """What the runs of one setting scored.

    Attributes:
        name: The setting's name.
        values: Its fields.
        seeds: The seed of each run; None for the base's own.
        by_run: Metric -> the value of each run.
        means: Metric -> the mean over the runs that have it. Of a single run, the interval is that
            over its examples.
        changes: Metric -> the mean difference to the sweep's first setting over the seeds that
            both have, with its interval; empty for the first, and without two such seeds.
    """

    name: str
    values: Mapping[str, Any]
    seeds: list[int | None]
    by_run: dict[str, list[float | None]]
    means: dict[str, Mean]
    changes: dict[str, Mean]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self)


def summarized(runs: Sequence[RunScores]) -> list[SettingScores]:
    """Return the settings of some runs, in their order."""
    names = list(dict.fromkeys(run.setting.name for run in runs))
    of_settings = {name: [run for run in runs if run.setting.name == name] for name in names}
    return [_summary(of_settings[name], of_settings[names[0]]) for name in names]


def _summary(runs: Sequence[RunScores], first: Sequence[RunScores]) -> SettingScores:
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.values))
    by_run = {metric: [run.values.get(metric) for run in runs] for metric in metrics}
    means = {
        metric: Mean.of([value for value in values if value is not None])
        for metric, values in by_run.items()
    }
    if len(runs) == 1:
        for metric, (low, high) in runs[0].intervals.items():
            means[metric] = Mean(means[metric].mean, low, high, 1)
    changes: dict[str, Mean] = {}
    for metric in metrics if runs[0].setting.name != first[0].setting.name else ():
        before = {run.setting.seed: run.values.get(metric) for run in first}
        pairs = [(run.values.get(metric), before.get(run.setting.seed)) for run in runs]
        found = [now - then for now, then in pairs if now is not None and then is not None]
        if len(found) > 1:
            changes[metric] = Mean.of(found)
    setting = runs[0].setting
    seeds = [run.setting.seed for run in runs]
    return SettingScores(setting.name, setting.values, seeds, by_run, means, changes)


def shown_metrics(settings: Sequence[SettingScores]) -> list[str]:
    """Return the metrics that a table shows unless others are asked for: no clusters, and time."""
    metrics = list(dict.fromkeys(metric for each in settings for metric in each.means))
    preferred = ("exact_match", "accuracy", "baseline")
    scores = [
        f"{which}/{name}"
        for which in reversed(SET_TITLES)
        for name in preferred
        if f"{which}/{name}" in metrics
    ]
    losses = [name for name in LOSSES if name in metrics]
    return [*(scores or losses), *([SECONDS] if SECONDS in metrics else [])]
