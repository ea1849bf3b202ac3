"""The train step: one pure function of (state, batch), which `train_program` jits and shards.

This module must not import Orbax, directly or indirectly: the step knows nothing about files.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ift_jax.config.schema import Config, LossConfig, PreferenceConfig
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules
from ift_jax.training.loss_and_grads import Batch, Sums, loss_and_grads, loss_arrays, loss_sums
from ift_jax.training.optimizer import LearningRateSchedule
from ift_jax.training.preference_step import pair_loss_and_grads, pair_sums
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
    has_dropout = bool(config.model.dropout or config.lora.dropout)
    compute = functools.partial(loss_and_grads, loss=config.loss)
    if config.preference.trains_pairs:
        compute = functools.partial(
            pair_loss_and_grads, loss=config.loss, preference=config.preference
        )

    def train_step(state: State, batch: Batch) -> tuple[State, Metrics]:
        step = state["step"]
        params = state["params"]
        dropout_key = jax.random.fold_in(jax.random.key(config.seed + 1), step)
        loss, grads, sums = compute(
            model,
            params,
            batch,
            n_tasks=n_tasks,
            gradient_accumulation_steps=config.train.gradient_accumulation_steps,
            dropout_key=dropout_key if has_dropout else None,
            frozen=state.get("frozen"),
        )
        if config.optimizer.shard_over_data:  # Each device updates only its own part.
            grads = _constrain(grads, moment_axes(model, over_data=True))
        grad_norm = optax.tree.norm(grads)
        rate = learning_rate(step)

        def update(opt_state: Any, params: Params) -> tuple[Any, Params]:
            clip_norm = config.optimizer.clip_norm
            clipped = _clip(grads, grad_norm, clip_norm) if clip_norm else grads
            directions, opt_state = optimizer.update(clipped, opt_state, params)
            return opt_state, jax.tree.map(lambda p, d: p - rate * d, params, directions)

        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        opt_state, params = _update_if(finite, update, state["opt_state"], params)
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
        arrays = {"params": params, "opt_state": opt_state, "interval": interval}
        new_state = {**state, **counters, **arrays}
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


def _update_if(
    finite: jax.Array,
    update: Callable[[Any, Params], tuple[Any, Params]],
    opt_state: Any,
    params: Params,
) -> tuple[Any, Params]:
    """Return `update(opt_state, params)` if `finite` (a scalar) holds, else the two as they are.

    XLA's CPU backend copies both moments whole before it selects between new and old ones, because
    the new parameters are computed from the old moments, too. In a branch it updates them in place:
    0.34 s instead of 0.6 to 0.8 for AdamW on the 135 million parameters of SmolLM2's shape.
    Accelerators select: a branch would wait for its condition.
    """
    if rules.platform() == "cpu":
        return jax.lax.cond(finite, update, lambda *unchanged: unchanged, opt_state, params)
    updated = update(opt_state, params)
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, (opt_state, params))


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


def make_pair_eval_step(
    model: Model, loss: LossConfig, preference: PreferenceConfig, n_tasks: int
) -> Callable[[Params, Batch], Sums]:
    """Make the eval step of pairs: the sums of `pair_sums` of a batch, without dropout."""

    def eval_step(params: Params, batch: Batch) -> Sums:
        _, sums = pair_sums(model, params, batch, loss, preference, n_tasks, None)
        return sums

    return eval_step
