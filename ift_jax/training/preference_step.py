"""Loss and gradient of a global batch of pairs, with gradient accumulation.

The logits are never whole here either: the output head runs twice over its chunks. The first pass
gives the log-probability of every trained token, so that of each side, and from these the loss of
each pair and its derivative by every token's log-probability. The second pass takes these
derivatives as the weights of a sum of token losses, whose gradient is exactly that of the loss
(chain rule). So the head costs a third more than in training on answers, and the layers nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import LossConfig, ModelConfig, PreferenceConfig
from ift_jax.data.pairs import REFERENCE, most_pairs
from ift_jax.models.fused_cross_entropy import (
    CrossEntropyOptions,
    TokenLoss,
    fused_linear_cross_entropy,
)
from ift_jax.models.model import Model, Params, join
from ift_jax.models.router import RouterSums
from ift_jax.training.loss_and_grads import (
    Batch,
    Sums,
    accumulate,
    loss_arrays,
    named_router_sums,
    split,
    token_sums,
    zero_sums,
)
from ift_jax.training.loss_normalization import SMALLEST_DENOMINATOR
from ift_jax.training.preference_loss import (
    PairLosses,
    Sides,
    count_pairs,
    pair_losses,
    spread,
    sum_by_side,
)

PAIR_SUMS = (
    "pairs",
    "pair_loss",
    "pairs_won",
    "chosen_reward",
    "rejected_reward",
    "chosen_log_prob",
    "rejected_log_prob",
)
TASK_PAIR_SUMS = ("task_pair_loss", "task_pairs")


def zero_pair_sums(n_tasks: int, config: ModelConfig) -> Sums:
    """Return the sums of `pair_sums` over no rows at all."""
    return {
        **zero_sums(n_tasks, config),
        **{name: jnp.zeros((), jnp.float32) for name in PAIR_SUMS},
        **{name: jnp.zeros(n_tasks, jnp.float32) for name in TASK_PAIR_SUMS},
    }


class _Scored(NamedTuple):
    """A batch under a model, after the first pass of the head."""

    hidden_BxLxD: jax.Array
    token_loss: TokenLoss  # BxL each.
    log_probs: Sides
    router: RouterSums | None


def _score(
    model: Model, params: Params, batch: Batch, chunk: int, dropout_key: jax.Array | None
) -> _Scored:
    arrays = loss_arrays(batch)
    hidden_BxLxD, router = model.hidden_and_router(params, batch, dropout_key)
    head_DxV, softcap = model.head(params)
    _, token_loss = fused_linear_cross_entropy(
        jax.lax.stop_gradient(hidden_BxLxD),
        jax.lax.stop_gradient(head_DxV),
        arrays.targets,
        arrays.loss_weights,
        CrossEntropyOptions(softcap, chunk=chunk),
    )
    n_pairs = most_pairs(arrays.targets.shape[1])
    log_probs_BxL = -token_loss.nll * arrays.loss_weights
    log_probs = sum_by_side(log_probs_BxL, arrays.segment_ids, n_pairs)
    return _Scored(hidden_BxLxD, token_loss, log_probs, router)


def log_probs_of_pairs(model: Model, params: Params, batch: Batch, chunk: int) -> Sides:
    """Return the log-probability of each side's trained tokens, by their weights, in each row.

    Args:
        model: The model.
        params: All of its parameters.
        batch: B rows of pairs, as `ift_jax.data.batches` lays them out.
        chunk: `loss.chunk` of the config.

    Returns:
        float32 BxP each, in the order of a row's pairs.
    """
    return _score(model, params, batch, chunk, dropout_key=None).log_probs


def pair_sums(
    model: Model,
    params: Params,
    batch: Batch,
    loss: LossConfig,
    preference: PreferenceConfig,
    n_tasks: int,
    dropout_key: jax.Array | None,
) -> tuple[jax.Array, Sums]:
    """Return the sum of the losses of a (micro)batch's pairs, and the sums for metrics.

    Args:
        model: The model.
        params: All of its parameters, frozen ones included.
        batch: B rows of pairs, as `ift_jax.data.batches` lays them out.
        loss: The config's section `loss`, of which only `chunk` is used.
        preference: The config's section `preference`.
        n_tasks: The number of tasks in the mixture.
        dropout_key: A JAX random key; None turns dropout off.

    Returns:
        The differentiable float32 sum, and a dict of float32 sums: those of `loss_sums`, of which
        "nll", "correct", "weight" and the tasks' are of the chosen sides alone; "pairs",
        "pair_loss" (the first value), "pairs_won" (pairs with the greater reward for the chosen
        side), the rewards and log-probabilities of both sides; "task_pair_loss" and "task_pairs",
        of shape [n_tasks].
    """
    arrays = loss_arrays(batch)
    n_pairs = most_pairs(arrays.targets.shape[1])
    scored = _score(model, params, batch, loss.chunk, dropout_key)
    weights = sum_by_side(arrays.loss_weights, arrays.segment_ids, n_pairs)
    reference = sum_by_side(batch[REFERENCE], arrays.segment_ids, n_pairs)
    is_pair_BxP = weights.rejected > 0

    def total_of(log_probs: Sides) -> tuple[jax.Array, PairLosses]:
        losses = pair_losses(log_probs, reference, weights, preference)
        return jnp.sum(jnp.where(is_pair_BxP, losses.loss, 0.0)), losses

    (pair_loss, losses), derivatives = jax.value_and_grad(total_of, has_aux=True)(scored.log_probs)
    # The head computes minus the log-probability, hence the sign.
    by_nll_BxL = -spread(derivatives, arrays.segment_ids) * arrays.loss_weights
    head_DxV, softcap = model.head(params)
    linear, _ = fused_linear_cross_entropy(
        scored.hidden_BxLxD,
        head_DxV,
        arrays.targets,
        jax.lax.stop_gradient(by_nll_BxL),
        CrossEntropyOptions(softcap, chunk=loss.chunk),
    )
    total = jax.lax.stop_gradient(pair_loss - linear) + linear
    sums = _metric_sums(batch, scored, losses, is_pair_BxP, n_tasks)
    if scored.router is not None:
        sums |= named_router_sums(scored.router)
    return total, jax.tree.map(jax.lax.stop_gradient, sums)


def _metric_sums(
    batch: Batch, scored: _Scored, losses: PairLosses, is_pair_BxP: jax.Array, n_tasks: int
) -> Sums:
    """Return the second value of `pair_sums`."""
    arrays = loss_arrays(batch)
    rewards, log_probs = losses.rewards, scored.log_probs
    is_chosen_BxL = arrays.segment_ids % 2 == 1
    chosen_weights_BxL = jnp.where(is_chosen_BxL, arrays.loss_weights, 0.0)
    is_task_NxT = jax.nn.one_hot(arrays.task_ids.reshape(-1), n_tasks, dtype=jnp.float32)

    def of_pairs(values_BxP: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(is_pair_BxP, values_BxP, 0.0))

    # A pair's task is that of its first token.
    starts_BxL = is_chosen_BxL & (batch["positions"] == 0)
    loss_BxL = spread(Sides(losses.loss, jnp.zeros_like(losses.loss)), arrays.segment_ids)
    loss_at_start_BxL = jnp.where(starts_BxL, loss_BxL, 0.0)
    pair_loss = of_pairs(losses.loss)
    return {
        "loss": pair_loss,
        "z_loss": jnp.zeros((), jnp.float32),
        **token_sums(arrays, scored.token_loss, chosen_weights_BxL, n_tasks),
        "pairs": count_pairs(arrays.segment_ids),
        "pair_loss": pair_loss,
        "pairs_won": of_pairs((rewards.chosen > rewards.rejected).astype(jnp.float32)),
        "chosen_reward": of_pairs(rewards.chosen),
        "rejected_reward": of_pairs(rewards.rejected),
        "chosen_log_prob": of_pairs(log_probs.chosen),
        "rejected_log_prob": of_pairs(log_probs.rejected),
        "task_pair_loss": loss_at_start_BxL.reshape(-1) @ is_task_NxT,
        "task_pairs": starts_BxL.reshape(-1).astype(jnp.float32) @ is_task_NxT,
    }


def pair_loss_and_grads(
    model: Model,
    params: Params,
    batch: Batch,
    loss: LossConfig,
    preference: PreferenceConfig,
    *,
    n_tasks: int,
    gradient_accumulation_steps: int = 1,
    dropout_key: jax.Array | None = None,
    frozen: Params | None = None,
) -> tuple[jax.Array, Params, Sums]:
    """Compute the mean loss of a global batch's pairs and its gradient.

    The denominator is the number of pairs in the whole batch, before it is split into
    microbatches; so neither depends on how it is split.

    Args:
        model: The model.
        params: The trained parameters, float32.
        batch: B rows of pairs.
        loss: The config's section `loss`.
        preference: The config's section `preference`.
        n_tasks: The number of tasks in the mixture.
        gradient_accumulation_steps: The number of microbatches; it divides B.
        dropout_key: A JAX random key; None turns dropout off.
        frozen: The parameters that get no gradient.

    Returns:
        The float32 loss, its gradient (a tree like `params`), and the sums of `pair_sums`.
    """

    def sums_of(params: Params, batch: Batch) -> tuple[jax.Array, Sums]:
        all_params = join(params, frozen or {})
        return pair_sums(model, all_params, batch, loss, preference, n_tasks, dropout_key)

    n_pairs = count_pairs(loss_arrays(batch).segment_ids)
    denominator = jnp.maximum(n_pairs, SMALLEST_DENOMINATOR)
    is_split = gradient_accumulation_steps > 1
    return accumulate(
        sums_of,
        params,
        split((batch,), gradient_accumulation_steps) if is_split else (batch,),
        denominator,
        lambda: zero_pair_sums(n_tasks, model.config),
        is_split=is_split,
    )
