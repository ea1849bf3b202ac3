"""Scores with their uncertainty: what another sample of problems could have given."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.evaluation.benchmarks.base import Ratio
from ift_jax.evaluation.intervals import Interval, Z, interval_of_mean, interval_of_scores


def estimate(values: Sequence[float | Ratio]) -> dict[str, Any]:
    """Return a mean, or a ratio of sums, with its standard error and 95% interval.

    The items are the sample. The standard error of a ratio is that of its linearization, so items
    with many instructions are not taken for many independent ones.

    Returns:
        `value`, `n`, and `stderr`, `low`, and `high` (the interval), which are None for a single
        item.
    """
    pairs = [value if isinstance(value, Ratio) else Ratio(value, 1.0) for value in values]
    total = sum(pair.denominator for pair in pairs)
    mean = sum(pair.numerator for pair in pairs) / total
    n = len(values)
    if n == 1:
        return _fields(mean, n, None)
    if not any(isinstance(value, Ratio) for value in values):
        return _fields(mean, n, interval_of_scores([pair.numerator for pair in pairs]))
    rest = sum((pair.numerator - mean * pair.denominator) ** 2 for pair in pairs)
    error = math.sqrt(rest * n / (n - 1)) / total
    return _fields(mean, n, Interval(error, mean - Z * error, mean + Z * error))


def mean_of_groups(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the unweighted mean of estimates, whose errors are independent, as an estimate."""
    values = [group["value"] for group in groups]
    mean = sum(values) / len(groups)
    n = sum(group["n"] for group in groups)
    if any(group["stderr"] is None for group in groups):
        return _fields(mean, n, None)
    intervals = [Interval(group["stderr"], group["low"], group["high"]) for group in groups]
    return _fields(mean, n, interval_of_mean(values, intervals))


def _fields(mean: float, n: int, interval: Interval | None) -> dict[str, Any]:
    """Return an estimate; a score is between 0 and 1, and so is its interval."""
    if interval is None:
        return {"value": mean, "stderr": None, "low": None, "high": None, "n": n}
    return {
        "value": mean,
        "stderr": interval.standard_error,
        "low": max(interval.low, 0.0),
        "high": min(interval.high, 1.0),
        "n": n,
    }
