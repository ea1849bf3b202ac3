"""The score of each single example, for metrics that are means over examples.

A metric function says nothing about how its value comes about. So it is called for each example
alone: if the mean of these values is the value for all of them, they are the examples' scores. That
holds for accuracy or ROUGE-L, and not for F1, corpus BLEU, or a correlation.
"""

import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

from ift_jax.evaluation.metric_values import plain
from ift_jax.metrics import MetricCall

# A metric that would take longer for single examples, such as one that runs a model, gets no
# intervals.
_MOST_SECONDS = 10.0


def example_scores(call: MetricCall, values: Mapping[str, Any], n: int) -> dict[str, list[float]]:
    """Return the scores of a metric's examples.

    Args:
        call: The metric.
        values: Its plain values for all examples, by name.
        n: The number of examples.

    Returns:
        By the name of each value that is a mean over examples, `n` scores. Nothing for a single
        example, which does not tell a mean from another metric, or if the metric raises.
    """
    names = [name for name, value in values.items() if type(value) in (int, float)]
    if call.compute_one is None or n < 2 or not names:
        return {}
    singles: list[Mapping[str, Any]] = []
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # A deviation or correlation of one example has none.
            for i in range(n):
                made = call.compute_one(i)
                singles.append(made if isinstance(made, Mapping) else {call.name: made})
                if (time.perf_counter() - began) / len(singles) * n > _MOST_SECONDS:
                    return {}
            found = {name: [plain(single.get(name)) for single in singles] for name in names}
    except (Exception, SystemExit):  # It is the metric's right to need more than one example.
        return {}
    return {name: scores for name, scores in found.items() if _is_mean(scores, values[name])}


def _is_mean(scores: list[Any], value: float) -> bool:
    if not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
        return False
    return math.isclose(sum(scores) / len(scores), value, rel_tol=1e-6, abs_tol=1e-9)
