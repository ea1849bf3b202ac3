"""`train.best_metric`: what ranks checkpoints and stops a run early."""

import math
from collections.abc import Mapping
from typing import Any

from ift_jax.config.schema import Config, TrainConfig
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError, offered

_SETS = ("eval", "heldout")
OVERALL = "overall"  # In the place of a task's name: the means over tasks.
_PARTS = (" (choices)", " (free)")  # They name parts of a task with and without choices.


def is_of_answers(metric: str) -> bool:
    """Whether `train.best_metric` is a metric of answers, and not a loss."""
    return metric.partition("/")[0] in _SETS


def is_used(train: TrainConfig) -> bool:
    """Whether anything depends on `train.best_metric`."""
    return train.keep_best > 0 or train.early_stopping_patience > 0


def check_best_metric(config: Config, mixtures: Mapping[str, Mixture | None]) -> None:
    """Check that the run will evaluate `train.best_metric`.

    Which metrics a task has is known only when its answers are scored, see `value_of`.

    Args:
        config: The run's config.
        mixtures: "eval" and "heldout", the latter None if the run has none.

    Raises:
        UserError: It will not.
    """
    train = config.train
    if not is_used(train):
        return
    where = f"config.train.best_metric: {train.best_metric!r}"
    which, _, rest = train.best_metric.partition("/")
    if train.best_metric == "heldout_loss" and mixtures["heldout"] is None:
        raise UserError(f"{where}: data.heldout_mixture is empty, so there is no such loss")
    if train.best_metric in ("eval_loss", "heldout_loss"):
        return
    task, _, metric = rest.partition("/")
    if which not in _SETS or not metric:
        raise UserError(
            f"{where}: expected eval_loss, heldout_loss, eval/TASK/METRIC or heldout/TASK/METRIC, "
            f"with {OVERALL} as TASK for the mean over tasks"
        )
    if not train.eval_metrics_every:
        raise UserError(f"{where}: is not evaluated; set train.eval_metrics_every")
    mixture = mixtures[which]
    if mixture is None or which not in config.evaluation.sets:
        raise UserError(
            f"{where}: {which!r} is not evaluated; expected it in evaluation.sets, and its mixture "
            "in data"
        )
    names = [OVERALL, *mixture.tasks]
    if task not in names and not any(task.removesuffix(part) in names for part in _PARTS):
        raise UserError(f"{where}: no task {task!r} is evaluated{offered(task, names)}")


def value_of(
    train: TrainConfig, record: Mapping[str, Any], *, is_strict: bool = True
) -> float | None:
    """Return the value of `train.best_metric` in a record; NaN where it could not be computed.

    Args:
        train: Names the metric.
        record: What the evaluations at a step found, as in `metrics.jsonl`.
        is_strict: Whether the metric must be there if answers were scored. Otherwise it is NaN.

    Returns:
        None if the record is of an evaluation without it.

    Raises:
        UserError: The answers were scored, and there is no such metric.
    """
    which, _, rest = train.best_metric.partition("/")
    if which not in record:
        return None
    if not rest:
        return _number(record[which])
    task, _, metric = rest.partition("/")
    of_task = record[which].get(task, {})
    if is_strict and metric not in of_task:
        where = f"config.train.best_metric: {train.best_metric!r}"
        if not of_task:
            raise UserError(f"{where}: no task {task!r} was scored{offered(task, record[which])}")
        hint = offered(metric, of_task) or "; none of it is a number"
        raise UserError(f"{where}: {task} has no metric {metric!r}{hint}")
    return _number(of_task.get(metric))


def _number(value: Any) -> float:
    """Return the number of a JSON value; null stands for one that is not finite."""
    return math.nan if value is None else float(value)
