"""Scores with their uncertainty: what another sample of problems could have given."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.evaluation.benchmarks.base import Ratio
from ift_jax.evaluation.intervals import Z, wilson_interval


def estimate(values: Sequence[float | Ratio]) -> dict[str, Any]:
    """Return a mean, or a ratio of sums, with its standard error and 95% interval.

    The items are the sample. The standard error of a ratio is that of its linearization, so items
    with many instructions are not taken for many independent ones. The interval of a share of
    right answers is Wilson's, which stays inside of 0 and 1 and is not empty at 0 of n; another
    mean has the normal interval.

    Returns:
        `value`, `stderr` (None for a single item), `low` and `high` (the interval), and `n`.
    """
    pairs = [value if isinstance(value, Ratio) else Ratio(value, 1.0) for value in values]
    n = len(pairs)
    total = sum(pair.denominator for pair in pairs)
    mean = sum(pair.numerator for pair in pairs) / total
    rest = sum((pair.numerator - mean * pair.denominator) ** 2 for pair in pairs)
    stderr = math.sqrt(rest * n / (n - 1)) / total if n > 1 else None
    if all(not isinstance(value, Ratio) and value in (0.0, 1.0) for value in values):
        low, high = wilson_interval(mean, n)
    else:
        low, high = _normal_interval(mean, stderr)
    return {"value": mean, "stderr": stderr, "low": low, "high": high, "n": n}


def mean_of_groups(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the unweighted mean of estimates, whose errors are independent, as an estimate."""
    mean = sum(group["value"] for group in groups) / len(groups)
    errors = [group["stderr"] for group in groups]
    stderr = None if None in errors else math.hypot(*errors) / len(groups)
    low, high = _normal_interval(mean, stderr)
    n = sum(group["n"] for group in groups)
    return {"value": mean, "stderr": stderr, "low": low, "high": high, "n": n}


def _normal_interval(mean: float, stderr: float | None) -> tuple[float, float]:
    """Return the normal 95% interval of a score between 0 and 1; all of it for a single item."""
    if stderr is None:
        return 0.0, 1.0
    return max(0.0, mean - Z * stderr), min(1.0, mean + Z * stderr)
