"""The train step: one pure function of (state, batch), jitted and sharded.

State, a plain dict of arrays:
    params: the trained parameters, float32.
    frozen, frozen_sum: only where there are others: those, without gradient and moments, and the
        checksum by which a resumed run knows them.
    opt_state: the optimizer's.
    step: int32, batches seen. It advances on a skipped step too: it is the place in the data.
    skipped, bad_streak: int32, non-finite steps in all, and in a row up to now.
    interval: sums since the last logged step. They live in the state, and so in the
        checkpoint: a run that was killed between two log lines writes the same line again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ift_jax.config.schema import Config, LossConfig
from ift_jax.models.fused_cross_entropy import HeadLoss, head_loss
from ift_jax.models.model import Model, join
from ift_jax.sharding import rules
from ift_jax.training import loss as loss_lib
from ift_jax.training.optimizer import Schedule
from ift_jax.training.state import State, _moment_axes

Batch = dict[str, jax.Array]


def decoder_side(batch: Batch) -> dict[str, jax.Array]:
    """The arrays where the loss is taken, under one set of names for both architectures."""
    prefix = "decoder_" if "decoder_targets" in batch else ""
    names = ("targets", "loss_weights", "segment_ids", "task_ids")
    return {name: batch[prefix + name] for name in names}


def batch_sums(
    model: Model,
    params: Any,
    batch: Batch,
    weights_BxL: jax.Array,
    loss: LossConfig,
    n_tasks: int,
    dropout_key: jax.Array | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted loss sum of a (micro)batch and the sums that metrics are made of.

    `batch` has B rows (`ift_jax.data.batches`); `weights_BxL` are normalised by the *global*
    batch's rule; without `dropout_key` there is no dropout.

    Returns:
        The float32 sum (differentiable) and sums: `nll` and `correct` over trained tokens by
        raw weight, `weight`, `trained` and `tokens` (counts), `task_nll` and `task_weight` (by
        task, n_tasks each).
    """
    side = decoder_side(batch)
    x_BxLxD, (w_DxV, softcap) = model.hidden(params, batch, dropout_key), model.head(params)
    options = HeadLoss(softcap, loss.z_loss, loss.label_smoothing, loss.chunk)
    total, parts = head_loss(x_BxLxD, w_DxV, side["targets"], weights_BxL, options)
    raw_BxL = side["loss_weights"]
    nll_BxL = parts.nll * raw_BxL
    by_task = jax.nn.one_hot(side["task_ids"].reshape(-1), n_tasks, dtype=jnp.float32)
    sums = {
        "loss": jax.lax.stop_gradient(total),
        "nll": jnp.sum(nll_BxL),
        "z_loss": jnp.sum(parts.z * raw_BxL),
        "correct": jnp.sum(parts.correct * raw_BxL),
        "weight": jnp.sum(raw_BxL),
        "trained": jnp.sum(raw_BxL != 0).astype(jnp.float32),
        "tokens": jnp.sum(side["segment_ids"] > 0).astype(jnp.float32),
        "task_nll": nll_BxL.reshape(-1) @ by_task,
        "task_weight": raw_BxL.reshape(-1) @ by_task,
    }
    if "encoder_segment_ids" in batch:
        sums["tokens"] += jnp.sum(batch["encoder_segment_ids"] > 0)
    return total, sums


def loss_and_grads(
    model: Model,
    params: Any,
    batch: Batch,
    loss: LossConfig,
    *,
    n_tasks: int,
    gradient_accumulation_steps: int = 1,
    dropout_key: jax.Array | None = None,
    frozen: Any = None,
) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """Loss and gradient of a global batch, the same however the batch is cut.

    The denominator comes from the whole batch before anything is cut; microbatches are summed
    by a scan and divided once. Averaging the means of microbatches would weight their tokens
    unequally (the defect that Tülu 3 reports of its training code). Returns the float32 loss,
    the gradient like `params`, and the sums of `batch_sums`.
    """
    side = decoder_side(batch)
    weights_BxL, denominator = loss_lib.normalized_weights(
        side["loss_weights"], side["segment_ids"], loss.normalization, loss.constant
    )

    def sums_of(params: Any, batch: Batch, weights: jax.Array) -> Any:
        params = join(params, frozen or {})
        return batch_sums(model, params, batch, weights, loss, n_tasks, dropout_key)

    grad_fn = jax.value_and_grad(sums_of, has_aux=True)
    if gradient_accumulation_steps == 1:
        (total, sums), grads = grad_fn(params, batch, weights_BxL)
    else:
        # Row b goes to microbatch b mod M: every device keeps its own rows.
        def cut(a: jax.Array) -> jax.Array:
            a = a.reshape(
                a.shape[0] // gradient_accumulation_steps, gradient_accumulation_steps, *a.shape[1:]
            ).swapaxes(0, 1)
            return rules.constrain(a, None, "batch", *(None,) * (a.ndim - 2))

        def add(carry: Any, slices: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, carry, grad_fn(params, *slices)), None

        cuts = jax.tree.map(cut, (batch, weights_BxL))
        shapes = jax.eval_shape(grad_fn, params, *jax.tree.map(lambda a: a[0], cuts))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        ((total, sums), grads), _ = jax.lax.scan(add, zeros, cuts)
    grads = jax.tree.map(lambda g: g / denominator, grads)
    return total / denominator, grads, sums


def make_train_step(
    model: Model, tx: optax.GradientTransformation, schedule: Schedule, config: Config, n_tasks: int
) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """The pure train step; jit it with the state donated.

    A step whose loss or gradient is not finite changes nothing but the counters. The metrics
    are the interval's sums up to this step, `grad_norm`, `learning_rate` and the counters.
    """
    train, clip = config.train, config.optimizer.clip_norm

    def train_step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        step, params = state["step"], state["params"]
        dropout_key = jax.random.fold_in(jax.random.key(config.seed + 1), step)
        loss, grads, sums = loss_and_grads(
            model,
            params,
            batch,
            config.loss,
            n_tasks=n_tasks,
            gradient_accumulation_steps=train.gradient_accumulation_steps,
            dropout_key=dropout_key if config.model.dropout else None,
            frozen=state.get("frozen"),
        )
        if config.optimizer.shard_over_data:  # Each device updates its part alone.
            cut = lambda g, axes: rules.constrain(g, *axes)  # noqa: E731
            grads = jax.tree.map(cut, grads, _moment_axes(model, True))
        grad_norm = optax.tree.norm(grads)
        if clip:
            scale = jnp.minimum(1.0, clip / jnp.maximum(grad_norm, 1e-30))
            grads = jax.tree.map(lambda g: g * scale, grads)
        directions, opt_state = tx.update(grads, state["opt_state"], params)
        rate = schedule(step)
        updated = jax.tree.map(lambda p, u: p - rate * u, params, directions)

        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        keep = lambda new, old: jnp.where(finite, new, old)  # noqa: E731
        sums = {name: jnp.where(finite, value, 0.0) for name, value in sums.items()}
        sums |= {"loss": jnp.where(finite, loss, 0.0), "steps": finite.astype(jnp.float32)}
        fresh = step % train.log_every == 0
        interval = jax.tree.map(lambda s, a: jnp.where(fresh, 0.0, s) + a, state["interval"], sums)
        bad = 1 - finite.astype(jnp.int32)
        counters = {
            "step": step + 1,
            "skipped": state["skipped"] + bad,
            "bad_streak": (state["bad_streak"] + bad) * bad,
        }
        new_state = (
            state
            | counters
            | {
                "params": jax.tree.map(keep, updated, params),
                "opt_state": jax.tree.map(keep, opt_state, state["opt_state"]),
                "interval": interval,
            }
        )
        return new_state, interval | counters | {"grad_norm": grad_norm, "learning_rate": rate}

    return train_step


def make_eval_step(
    model: Model, loss: LossConfig, n_tasks: int
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Held-out sums of a batch by plain NLL: add them over batches, then divide once."""
    plain = LossConfig(normalization="sum", chunk=loss.chunk)

    def eval_step(params: Any, batch: Batch) -> dict[str, jax.Array]:
        weights = decoder_side(batch)["loss_weights"]
        return batch_sums(model, params, batch, weights, plain, n_tasks, None)[1]

    return eval_step
