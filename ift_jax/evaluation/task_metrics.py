"""The metrics of each task: by name where no SeqIO is needed, else those of the SeqIO task.

Metrics of lists of accepted answers (`ift_jax.metrics.reference_metric`) are found by their names.
All others have SeqIO's contract, for which `ift_jax.preparation.seqio_metrics` imports TensorFlow;
this module is the one door to it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore
from ift_jax.metrics import SEQIO_METRICS, Metric, MetricCall, ModelOutput, metric_by_name
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import


@dataclasses.dataclass(frozen=True)
class TaskMetrics:
    """The metrics of one task.

    Attributes:
        calls: Gives the metrics of some examples, each to be computed by itself.
        is_tokenized: Whether the task tokenizes itself, so that its target is all that is trained.
        needs_target_scores: Whether a metric takes the log-likelihoods of the targets.
        needs_answer_scores: Whether a metric takes the log-likelihoods of the answers.
    """

    calls: Callable[[Sequence[ModelOutput]], list[MetricCall]]
    is_tokenized: bool = False
    needs_target_scores: bool = False
    needs_answer_scores: bool = False


def task_metrics(mixture: Mixture, config: Config) -> dict[str, TaskMetrics]:
    """Return the metrics of each task.

    The metrics of a SeqIO task that cannot be had, such as for a module that cannot be imported,
    become one that raises why, so that the other tasks are scored all the same.
    """
    tasks = zip(mixture.tasks, mixture.stores, mixture.metric_fns, strict=True)
    return {
        name: _seqio_metrics(name, store, config)
        if SEQIO_METRICS in metrics
        else TaskMetrics(functools.partial(_reference_calls, metrics))
        for name, store, metrics in tasks
    }


def _reference_calls(metrics: Sequence[str], outputs: Sequence[ModelOutput]) -> list[MetricCall]:
    """Return metrics of lists of accepted answers, given by their names."""
    references = [list(output.references) for output in outputs]
    answers = [output.answer for output in outputs]
    metric = functools.cache(_import_metric)

    def compute(name: str) -> object:
        return metric(name)(references, answers)

    def compute_one(name: str, i: int) -> object:
        return metric(name)(references[i : i + 1], answers[i : i + 1])

    return [
        MetricCall(
            name.rpartition(":")[2],
            functools.partial(compute, name),
            functools.partial(compute_one, name),
        )
        for name in metrics
    ]


def _import_metric(name: str) -> Metric:
    """Return a metric by its name; its module may register tasks, too, and so import TensorFlow."""
    with quiet_tensorflow_import():
        return metric_by_name(name)


def _seqio_metrics(name: str, store: TokenStore, config: Config) -> TaskMetrics:
    try:
        with quiet_tensorflow_import():
            from ift_jax.preparation.seqio_metrics import open_metrics
        metrics = open_metrics(config, name, store.manifest["split"])
    except Exception as error:  # A user's module may raise anything; it is reported below.
        return TaskMetrics(functools.partial(_failed_calls, error))
    return TaskMetrics(
        metrics.calls,
        metrics.is_tokenized,
        metrics.needs_target_scores,
        metrics.needs_answer_scores,
    )


def _failed_calls(error: Exception, outputs: Sequence[ModelOutput]) -> list[MetricCall]:
    """Return one metric, which raises why there are no others."""
    del outputs

    def compute() -> object:
        raise error

    return [MetricCall("all of its own metrics", compute)]
