"""The train step: one pure function of (state, batch), which `train_program` jits and shards.

This module must not import Orbax, directly or indirectly: the step knows nothing about files.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ift_jax.config.schema import Config, LossConfig
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules
from ift_jax.training.loss_and_grads import Batch, Sums, loss_and_grads, loss_arrays, loss_sums
from ift_jax.training.optimizer import LearningRateSchedule
from ift_jax.training.state import State, moment_axes

Metrics = dict[str, jax.Array]


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    learning_rate: LearningRateSchedule,
    config: Config,
    n_tasks: int,
) -> Callable[[State, Batch], tuple[State, Metrics]]:
    """Make the pure train step; jit it with the state donated.

    A step whose loss or gradient is not finite changes nothing but the counters.

    Args:
        model: The model, with its adapters and frozen parameters.
        optimizer: Gives the direction of an update (`make_optimizer`).
        learning_rate: Gives the learning rate of a step (`make_learning_rate`).
        config: The run's config.
        n_tasks: The number of tasks in the mixture.

    Returns:
        `train_step(state, batch)`, which returns the next state and the metrics: the sums of the
        current log interval up to this step (`loss_sums` and "steps"), the counters "step",
        "skipped" and "bad_streak" (see `ift_jax.training.state`), "grad_norm" before clipping,
        and "learning_rate".
    """

    def train_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        step = state["step"]
        params = state["params"]
        dropout_key = jax.random.fold_in(jax.random.key(config.seed + 1), step)
        loss, grads, sums = loss_and_grads(
            model,
            params,
            batch,
            config.loss,
            n_tasks=n_tasks,
            gradient_accumulation_steps=config.train.gradient_accumulation_steps,
            dropout_key=dropout_key if config.model.dropout else None,
            frozen=state.get("frozen"),
        )
        if config.optimizer.shard_over_data:  # Each device updates only its own part.
            grads = _constrain(grads, moment_axes(model, over_data=True))
        grad_norm = optax.tree.norm(grads)
        if config.optimizer.clip_norm:
            grads = _clip(grads, grad_norm, config.optimizer.clip_norm)
        directions, opt_state = optimizer.update(grads, state["opt_state"], params)
        rate = learning_rate(step)
        updated = jax.tree.map(lambda p, direction: p - rate * direction, params, directions)

        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        step_sums = _sums_of_step(sums, loss, finite)
        # A log interval starts after each logged step.
        starts_interval = step % config.train.log_every == 0
        interval = jax.tree.map(
            lambda before, added: jnp.where(starts_interval, 0.0, before) + added,
            state["interval"],
            step_sums,
        )
        bad = 1 - finite.astype(jnp.int32)
        counters = {
            "step": step + 1,
            "skipped": state["skipped"] + bad,
            "bad_streak": jnp.where(finite, 0, state["bad_streak"] + 1),
        }
        new_state = {
            **state,
            **counters,
            "params": _where(finite, updated, params),
            "opt_state": _where(finite, opt_state, state["opt_state"]),
            "interval": interval,
        }
        metrics = {**interval, **counters, "grad_norm": grad_norm, "learning_rate": rate}
        return new_state, metrics

    return train_step


def _constrain(tree: Any, logical_axes: Any) -> Any:
    """Constrain each array to the sharding of its logical axes."""
    return jax.tree.map(lambda array, axes: rules.constrain(array, *axes), tree, logical_axes)


def _clip(grads: Params, norm: jax.Array, clip_norm: float) -> Params:
    """Scale the gradient so that its global norm is at most `clip_norm`."""
    scale = jnp.minimum(1.0, clip_norm / jnp.maximum(norm, 1e-30))
    return jax.tree.map(lambda grad: grad * scale, grads)


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return the tree `new` where `condition` (a scalar) holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _sums_of_step(sums: Sums, loss: jax.Array, finite: jax.Array) -> Sums:
    """Return what a step adds to the interval's sums; zeros if it is not finite.

    The interval's "loss" is a sum over steps; divide by "steps" for the mean.
    """
    added = {name: jnp.where(finite, value, 0.0) for name, value in sums.items()}
    added["loss"] = jnp.where(finite, loss, 0.0)
    added["steps"] = finite.astype(jnp.float32)
    return added


def make_eval_step(model: Model, loss: LossConfig, n_tasks: int) -> Callable[[Params, Batch], Sums]:
    """Make the eval step: the sums of `loss_sums` of a batch, without dropout.

    The loss is the plain NLL: no label smoothing, no z-loss. Add the sums over batches, then
    divide once.
    """
    plain = LossConfig(normalization="sum", chunk=loss.chunk)

    def eval_step(params: Params, batch: Batch) -> Sums:
        weights_BxL = loss_arrays(batch).loss_weights
        _, sums = loss_sums(model, params, batch, weights_BxL, plain, n_tasks, None)
        return sums

    return eval_step
