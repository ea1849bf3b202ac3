"""How sure a mean over examples is: its standard error and its 95% interval."""

import math
from collections.abc import Sequence
from typing import NamedTuple

Z = 1.959963984540054  # The 97.5% quantile of the normal distribution.


class Interval(NamedTuple):
    """The uncertainty of a mean.

    Attributes:
        standard_error: Of the mean: the deviation of the scores (with n - 1) over sqrt(n).
        low: The lower end of the 95% interval.
        high: The upper end of the 95% interval.
    """

    standard_error: float
    low: float
    high: float


def interval_of_scores(scores: Sequence[float]) -> Interval:
    """Return the interval of the mean of some examples' scores.

    For scores that are all 0 or 1 it is Wilson's interval (1927), which is not empty where all are
    right or all are wrong; for others the normal approximation.

    Args:
        scores: At least two finite numbers.
    """
    n = len(scores)
    mean = sum(scores) / n
    error = math.sqrt(sum((score - mean) ** 2 for score in scores) / (n - 1) / n)
    if any(score not in (0, 1) for score in scores):
        return Interval(error, mean - Z * error, mean + Z * error)
    return Interval(error, *wilson_interval(mean, n))


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Return the 95% score interval of a share of n (Wilson 1927)."""
    center = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    # Where all are wrong, or all are right, the end is exact; subtracting would round it.
    return 0.0 if share == 0 else center - half, 1.0 if share == 1 else center + half


def interval_of_mean(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Return the interval of the plain mean of independent values with these intervals.

    Its distances from the mean are the roots of the sums of squares of theirs, over their number
    (MOVER, Zou and Donner 2008): that of a single value is its own.
    """
    n = len(values)
    mean = sum(values) / n
    pairs = list(zip(values, intervals, strict=True))
    return Interval(
        math.sqrt(sum(interval.standard_error**2 for interval in intervals)) / n,
        mean - math.sqrt(sum((value - interval.low) ** 2 for value, interval in pairs)) / n,
        mean + math.sqrt(sum((interval.high - value) ** 2 for value, interval in pairs)) / n,
    )
