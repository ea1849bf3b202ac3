"""The metrics record of a log interval, from the sums that the train step keeps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def interval_metrics(
    sums: Mapping[str, Any], tasks: Sequence[str], positions_per_step: int
) -> dict[str, Any]:
    """Return a record of `metrics.jsonl`: every mean is one sum divided by another.

    Args:
        sums: Host values of the train step's metrics (`ift_jax.training.step.make_train_step`).
        tasks: The names of the mixture's tasks; "task_nll" and "task_weight" are in their order.
        positions_per_step: Token positions in a global batch, padding included.

    Returns:
        "loss" is the mean over steps of the loss that is minimized; "nll", "z_loss" and
        "accuracy" are means over trained tokens by their weights; "fill" is the fraction of
        positions that hold a token; "task_nll" and "task_tokens" (the sum of weights) have an
        entry for each task with trained tokens. The others are as in `sums`. Steps that were not
        finite count in none of the means; a mean over nothing is NaN.
    """
    n_steps = float(sums["steps"])
    weight = float(sums["weight"])
    task_nll = np.asarray(sums["task_nll"])
    task_weight = np.asarray(sums["task_weight"])
    trained_tasks = [(task, i) for i, task in enumerate(tasks) if task_weight[i] > 0]
    return {
        "step": int(sums["step"]),
        "loss": mean(float(sums["loss"]), n_steps),
        "nll": mean(float(sums["nll"]), weight),
        "z_loss": mean(float(sums["z_loss"]), weight),
        "accuracy": mean(float(sums["correct"]), weight),
        "grad_norm": float(sums["grad_norm"]),
        "learning_rate": float(sums["learning_rate"]),
        "trained_tokens": int(sums["trained"]),
        "tokens": int(sums["tokens"]),
        "fill": mean(float(sums["tokens"]), n_steps * positions_per_step),
        "skipped": int(sums["skipped"]),
        "task_nll": {task: float(task_nll[i] / task_weight[i]) for task, i in trained_tasks},
        "task_tokens": {task: float(task_weight[i]) for task, i in trained_tasks},
    }


def mean(total: float, weight: float) -> float:
    """Return `total / weight`, NaN where there is no weight."""
    return total / weight if weight > 0 else math.nan
