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
        entry for each task with trained tokens; in a run on pairs these are of the chosen sides,
        and "preference" holds `pair_metrics`; "router", with experts, is what `router_metrics`
        returns. The others are as in `sums`. Steps that were not
        finite count in none of the means; a mean over nothing is NaN.
    """
    n_steps = float(sums["steps"])
    weight = float(sums["weight"])
    task_nll = np.asarray(sums["task_nll"])
    task_weight = np.asarray(sums["task_weight"])
    trained_tasks = [(task, i) for i, task in enumerate(tasks) if task_weight[i] > 0]
    record = {
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
    if "router_load_E" in sums:
        record["router"] = router_metrics(sums)
    if "pairs" in sums:
        record["preference"] = pair_metrics(sums)
    return record


def router_metrics(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of the routers of a mixture of experts.

    Args:
        sums: As for `interval_metrics`; those of `ift_jax.models.router.RouterSums` among them.

    Returns:
        "balance", the load-balancing loss before its factor, which is the number of experts per
        token if every expert gets as many tokens as any other; "z_loss", before its factor;
        "dropped", the choices that no expert computed; and by layer "max_share", the largest part
        of the choices that one expert has, and "entropy", the mean over tokens of the entropy of
        the router's probabilities, in nats.
    """
    load_LxE = np.asarray(sums["router_load_E"], np.float64)
    probability_LxE = np.asarray(sums["router_probability_E"], np.float64)
    tokens_L = probability_LxE.sum(axis=1)  # The probabilities of a token add up to 1.
    n_pairs = tokens_L.sum()
    balance = load_LxE.shape[1] * (load_LxE.sum(axis=0) * probability_LxE.sum(axis=0)).sum()
    choices_L = load_LxE.sum(axis=1)
    layers = np.flatnonzero(choices_L).tolist()  # Dense layers among them have no router.
    return {
        "balance": mean(float(balance), float(n_pairs**2)),
        "z_loss": mean(float(np.sum(sums["router_square_log_z"])), float(n_pairs)),
        "dropped": round(float(np.sum(sums["router_dropped"]))),
        "max_share": {str(i): mean(float(load_LxE[i].max()), float(choices_L[i])) for i in layers},
        "entropy": {
            str(i): mean(float(sums["router_entropy"][i]), float(tokens_L[i])) for i in layers
        },
    }


def pair_metrics(sums: Mapping[str, Any]) -> dict[str, float]:
    """Return the means over pairs that a record has under "preference".

    Args:
        sums: Host values with those of `ift_jax.training.preference_step.PAIR_SUMS`.

    Returns:
        "accuracy", the share of pairs whose chosen side has the greater reward; "margin", the mean
        difference of the rewards; the mean rewards and log-probabilities of both sides; and the
        number of "pairs".
    """
    n_pairs = float(sums["pairs"])
    means = {
        name: mean(float(sums[name]), n_pairs)
        for name in ("chosen_reward", "rejected_reward", "chosen_log_prob", "rejected_log_prob")
    }
    return {
        "pairs": int(n_pairs),
        "accuracy": mean(float(sums["pairs_won"]), n_pairs),
        "margin": means["chosen_reward"] - means["rejected_reward"],
        **means,
    }


def mean(total: float, weight: float) -> float:
    """Return `total / weight`, NaN where there is no weight."""
    return total / weight if weight > 0 else math.nan
