"""Whether one model answers the same examples better than another, or by chance."""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

_RESAMPLES = 10_000
_VALUES_AT_ONCE = 10**7  # Counts that are drawn at a time: 80 MB.


class Interval(NamedTuple):
    """The middle 95% of a bootstrap distribution."""

    lower: float
    upper: float

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside, so that the difference is hardly chance."""
        return self.lower > 0 or self.upper < 0


def mean_interval(scores: Mapping[str, np.ndarray], seed: int = 0) -> Interval:
    """Return the interval of a mean over tasks by the percentile bootstrap (Efron, 1979).

    The examples of each task are drawn anew with replacement; tasks are not, since a benchmark's
    tasks are fixed. Given differences between two models' scores of the same examples, this is the
    paired bootstrap.

    Args:
        scores: For each task, a float array `[examples]` with at least one score.
        seed: The draws are a function of the seed and the task's name.
    """
    total = np.zeros(_RESAMPLES)
    for task, of_task in scores.items():
        rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
        total += _resampled_means(np.asarray(of_task, np.float64), rng)
    lower, upper = np.percentile(total / len(scores), (2.5, 97.5)).tolist()
    return Interval(lower, upper)


def _resampled_means(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the mean of each resample of `[examples]` scores: `[_RESAMPLES]`.

    How often each value is drawn is multinomial. That is cheaper to draw than the examples, because
    most scores have few values.
    """
    values, counts = np.unique(scores, return_counts=True)
    n = len(scores)
    rows = max(_VALUES_AT_ONCE // len(values), 1)
    means = [
        rng.multinomial(n, counts / n, min(rows, _RESAMPLES - start)) @ values / n
        for start in range(0, _RESAMPLES, rows)
    ]
    return np.concatenate(means)


class McNemar(NamedTuple):
    """McNemar's exact test of two models' right and wrong answers to the same examples.

    Attributes:
        only_first: Examples that the first model alone answers rightly.
        only_second: Examples that the second model alone answers rightly.
        p_value: The probability of a difference at least as large between equally good models.
    """

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Test whether one of two models is right more often (McNemar, 1947; the exact form).

    Args:
        first: Boolean array `[examples]`: whether the first model's answer is right.
        second: The same of the second model, in the same order.
    """
    from scipy.stats import binomtest  # On use: it takes a third of a second to import.

    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(second & ~first))
    differing = only_first + only_second
    p_value = binomtest(only_first, differing).pvalue if differing else 1.0
    return McNemar(only_first, only_second, float(p_value))
