"""Which metrics the tasks of a mixture have, before any answer is scored."""

from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.metrics import SEQIO_METRICS, metric_by_name
from ift_jax.preparation.open_or_prepare import open_if_prepared

# What every scored task has, besides its own metrics.
OF_EVERY_TASK = ("exact_match", "accuracy", "baseline", "stopped")


def known_metrics(config: Config, which: str) -> tuple[list[str], list[str]]:
    """Return the names of all that a mixture is scored by, and those of its clusters.

    Args:
        config: A run's config.
        which: "eval" or "heldout".

    Returns:
        No name if some cannot be known yet: a store is not prepared, a task's metrics are SeqIO's,
        or one cannot be computed of an example.
    """
    opened = open_if_prepared(config, which)
    return ([], []) if opened is None else (_metrics(opened[1]), _clusters(opened[1]))


def _metrics(mixture: Mixture) -> list[str]:
    names = dict.fromkeys(OF_EVERY_TASK)
    for metric in dict.fromkeys(name for of_task in mixture.metric_fns for name in of_task):
        if metric == SEQIO_METRICS:
            return []
        try:
            # One right answer: what a metric returns for it has the names of its values.
            names |= dict.fromkeys(metric_by_name(metric)([["a"]], ["a"]))
        except Exception:  # It is the user's code; the evaluation names what it raises.
            return []
    return list(names)


def _clusters(mixture: Mixture) -> list[str]:
    return sorted({store.manifest.get("cluster") or "" for store in mixture.stores} - {""})
