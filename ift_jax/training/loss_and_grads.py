"""Loss and gradient of a global batch, with gradient accumulation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import DecoderConfig, LossConfig, ModelConfig
from ift_jax.models.fused_cross_entropy import (
    CrossEntropyOptions,
    TokenLoss,
    fused_linear_cross_entropy,
)
from ift_jax.models.model import Model, Params, join
from ift_jax.models.router import RouterSums, zero_router_sums
from ift_jax.sharding import rules
from ift_jax.training.loss_normalization import NormalizedWeights, normalized_weights
from ift_jax.training.router_loss import GlobalRouting, load_of_experts, router_loss

Batch = dict[str, jax.Array]  # See `ift_jax.data.batches.BatchPlan.batch`.
Sums = dict[str, jax.Array]  # See `loss_sums`.

SCALAR_SUMS = ("loss", "nll", "z_loss", "correct", "weight", "trained", "tokens")
TASK_SUMS = ("task_nll", "task_weight")
ROUTER_SUM = "router_"  # Before the names of `RouterSums`.


class LossArrays(NamedTuple):
    """The arrays of a batch on the side that has the loss: the decoder's."""

    targets: jax.Array  # int32 BxL
    loss_weights: jax.Array  # float32 BxL
    segment_ids: jax.Array  # int32 BxL, 0 in padding
    task_ids: jax.Array  # int32 BxL, -1 in padding


def loss_arrays(batch: Batch) -> LossArrays:
    """Return a batch's targets and weights, whatever the architecture."""
    prefix = "decoder_" if "decoder_targets" in batch else ""
    return LossArrays(**{name: batch[prefix + name] for name in LossArrays._fields})


def zero_sums(n_tasks: int, config: ModelConfig) -> Sums:
    """Return the sums of `loss_sums` over no rows at all."""
    sums = {
        **{name: jnp.zeros((), jnp.float32) for name in SCALAR_SUMS},
        **{name: jnp.zeros(n_tasks, jnp.float32) for name in TASK_SUMS},
    }
    if isinstance(config, DecoderConfig) and config.n_experts:
        sums |= named_router_sums(zero_router_sums(config.n_experts, (config.n_layers,)))
    return sums


def named_router_sums(router: RouterSums) -> Sums:
    """Return the sums of the routers by the names that they have among all sums."""
    return {ROUTER_SUM + name: jax.lax.stop_gradient(a) for name, a in router._asdict().items()}


def loss_sums(
    model: Model,
    params: Params,
    batch: Batch,
    weights_BxL: jax.Array,
    loss: LossConfig,
    n_tasks: int,
    dropout_key: jax.Array | None,
    routing: GlobalRouting | None = None,
) -> tuple[jax.Array, Sums]:
    """Return the weighted loss sum of a (micro)batch, and the sums that metrics are made of.

    Args:
        model: The model.
        params: All of its parameters, frozen ones included.
        batch: B rows, as `ift_jax.data.batches` lays them out.
        weights_BxL: float32 loss weights, normalized over the *global* batch.
        loss: The options of the loss at one position.
        n_tasks: The number of tasks in the mixture.
        dropout_key: A JAX random key; None turns dropout off.
        routing: What the routers' losses need to know of the global batch; None: no such losses.

    Returns:
        The differentiable float32 sum, and a dict of float32 sums: "loss" (the same sum, not
        differentiable); by raw weight over trained tokens "nll", "z_loss", "correct" and
        "weight"; the counts "trained" (tokens with a loss) and "tokens" (all but padding, of
        encoder and decoder); "task_nll" and "task_weight", of shape [n_tasks]; with experts the
        fields of `RouterSums`, "router_" in front.
    """
    arrays = loss_arrays(batch)
    hidden_BxLxD, router = model.hidden_and_router(params, batch, dropout_key)
    head_DxV, softcap = model.head(params)
    options = CrossEntropyOptions(softcap, loss.z_loss, loss.label_smoothing, loss.chunk)
    total, token_loss = fused_linear_cross_entropy(
        hidden_BxLxD, head_DxV, arrays.targets, weights_BxL, options
    )
    if router is not None and routing is not None:
        total += router_loss(router, routing, loss)

    sums = {
        "loss": jax.lax.stop_gradient(total),
        "z_loss": jnp.sum(token_loss.z * arrays.loss_weights),
        **token_sums(arrays, token_loss, arrays.loss_weights, n_tasks),
    }
    if "encoder_segment_ids" in batch:
        sums["tokens"] += jnp.sum(batch["encoder_segment_ids"] > 0)
    if router is not None:
        sums |= named_router_sums(router)
    return total, sums


def token_sums(
    arrays: LossArrays, token_loss: TokenLoss, weights_BxL: jax.Array, n_tasks: int
) -> Sums:
    """Return the sums of `loss_sums` over tokens that every loss reports.

    Args:
        arrays: A batch's targets and weights.
        token_loss: What the head gave at each position.
        weights_BxL: float32; the weights of "nll", "correct", "weight" and of the tasks' sums, not
            of the counts.
        n_tasks: The number of tasks in the mixture.
    """
    nll_BxL = token_loss.nll * weights_BxL
    is_task_NxT = jax.nn.one_hot(arrays.task_ids.reshape(-1), n_tasks, dtype=jnp.float32)
    return {
        "nll": jnp.sum(nll_BxL),
        "correct": jnp.sum(token_loss.correct * weights_BxL),
        "weight": jnp.sum(weights_BxL),
        "trained": jnp.sum(arrays.loss_weights != 0).astype(jnp.float32),
        "tokens": jnp.sum(arrays.segment_ids > 0).astype(jnp.float32),
        "task_nll": nll_BxL.reshape(-1) @ is_task_NxT,
        "task_weight": weights_BxL.reshape(-1) @ is_task_NxT,
    }


def loss_and_grads(
    model: Model,
    params: Params,
    batch: Batch,
    loss: LossConfig,
    *,
    n_tasks: int,
    gradient_accumulation_steps: int = 1,
    dropout_key: jax.Array | None = None,
    frozen: Params | None = None,
) -> tuple[jax.Array, Params, Sums]:
    """Compute loss and gradient of a global batch; the result does not depend on how it is split.

    The denominator comes from the whole batch, before it is split into microbatches.

    Args:
        model: The model.
        params: The trained parameters, float32.
        batch: B rows, as `ift_jax.data.batches` lays them out.
        loss: The config's section `loss`.
        n_tasks: The number of tasks in the mixture.
        gradient_accumulation_steps: The number of microbatches; it divides B.
        dropout_key: A JAX random key; None turns dropout off.
        frozen: The parameters that get no gradient.

    Returns:
        The float32 loss, its gradient (a tree like `params`), and the sums of `loss_sums`.
    """
    arrays = loss_arrays(batch)
    normalized = normalized_weights(
        arrays.loss_weights, arrays.segment_ids, loss.normalization, loss.constant
    )
    return weighted_loss_and_grads(
        model,
        params,
        batch,
        normalized,
        loss,
        n_tasks=n_tasks,
        gradient_accumulation_steps=gradient_accumulation_steps,
        dropout_key=dropout_key,
        frozen=frozen,
    )


def weighted_loss_and_grads(
    model: Model,
    params: Params,
    batch: Batch,
    normalized: NormalizedWeights,
    loss: LossConfig,
    *,
    n_tasks: int,
    gradient_accumulation_steps: int,
    dropout_key: jax.Array | None,
    frozen: Params | None,
) -> tuple[jax.Array, Params, Sums]:
    """Compute loss and gradient with given weights; otherwise like `loss_and_grads`.

    Microbatches are summed by a scan, and the sum is divided once: averaging the means of
    microbatches would weight their tokens unequally (the defect that Tülu 3 reports of its
    training code).

    Args:
        model: As in `loss_and_grads`, like all arguments but one.
        params: The trained parameters.
        batch: The global batch.
        normalized: The weights of the batch's tokens, and the denominator.
        loss: The options of the loss at one position; the normalization is not used.
        n_tasks: The number of tasks.
        gradient_accumulation_steps: The number of microbatches.
        dropout_key: A JAX random key, or None.
        frozen: The parameters that get no gradient.
    """
    microbatches = None
    if gradient_accumulation_steps > 1:
        microbatches = split((batch, normalized.weights_BxL), gradient_accumulation_steps)
    routing = None
    if loss.router_balance or loss.router_z_loss:
        load_E = None
        if microbatches is not None and loss.router_balance:
            load_E = _global_load(model, join(params, frozen or {}), microbatches[0], dropout_key)
        n_tokens = jnp.sum(loss_arrays(batch).segment_ids > 0).astype(jnp.float32)
        assert isinstance(model.config, DecoderConfig), "refused without experts"
        n_pairs = sum(model.config.layers_with_experts()) * n_tokens
        routing = GlobalRouting(n_pairs, load_E, normalized.denominator)

    def sums_of(params: Params, batch: Batch, weights_BxL: jax.Array) -> tuple[jax.Array, Sums]:
        all_params = join(params, frozen or {})
        return loss_sums(model, all_params, batch, weights_BxL, loss, n_tasks, dropout_key, routing)

    return accumulate(
        sums_of,
        params,
        (batch, normalized.weights_BxL) if microbatches is None else microbatches,
        normalized.denominator,
        lambda: zero_sums(n_tasks, model.config),
        is_split=microbatches is not None,
    )


def accumulate(
    sums_of: Callable[..., tuple[jax.Array, Sums]],
    params: Params,
    batch: tuple[Any, ...],
    denominator: jax.Array,
    make_zeros: Callable[[], Sums],
    *,
    is_split: bool,
) -> tuple[jax.Array, Params, Sums]:
    """Add up loss and gradient over the microbatches of a batch, and divide once.

    Args:
        sums_of: The loss sum and the other sums of a microbatch, from the trained parameters and
            the microbatch's part of each item of `batch`.
        params: The trained parameters.
        batch: Trees of arrays of the global batch, split into microbatches or not.
        denominator: What the sums of the loss and of its gradient are divided by.
        make_zeros: Returns the other sums over no rows at all.
        is_split: Whether `split` has split the batch.

    Returns:
        The float32 loss, its gradient, and the other sums.
    """
    grad_fn = jax.value_and_grad(sums_of, has_aux=True)
    if not is_split:
        (total, sums), grads = grad_fn(params, *batch)
    else:

        def add(carry: Any, microbatch: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, carry, grad_fn(params, *microbatch)), None

        # Written out rather than taken from `eval_shape`, which would trace the model once more.
        zero_loss_and_sums = (jnp.zeros((), jnp.float32), make_zeros())
        zero_grads = jax.tree.map(lambda param: jnp.zeros(param.shape, param.dtype), params)
        zeros = (zero_loss_and_sums, zero_grads)
        ((total, sums), grads), _ = jax.lax.scan(add, zeros, batch)
    grads = jax.tree.map(lambda grad: grad / denominator, grads)
    return total / denominator, grads, sums


def _global_load(
    model: Model, params: Params, microbatches: Batch, dropout_key: jax.Array | None
) -> jax.Array:
    """Return how many tokens of all microbatches go to each expert, over all layers."""

    def add(load_E: jax.Array, microbatch: Batch) -> tuple[jax.Array, None]:
        _, router = model.hidden_and_router(params, microbatch, dropout_key)
        assert router is not None, "a loss of routers is refused without experts"
        return load_E + load_of_experts(router), None

    config = model.config
    assert isinstance(config, DecoderConfig)
    zeros_E = jnp.zeros((config.n_experts,), jnp.float32)
    return jax.lax.scan(add, zeros_E, microbatches)[0]


def split(tree: Any, n_microbatches: int) -> Any:
    """Split the rows of a tree's arrays: B x ... becomes M x B/M x ...

    Row b goes to microbatch b mod M, so every device keeps its own rows.
    """

    def split_array(array: jax.Array) -> jax.Array:
        n_rows, *rest = array.shape
        rows = array.reshape(n_rows // n_microbatches, n_microbatches, *rest).swapaxes(0, 1)
        return rules.constrain(rows, None, "batch", *[None] * len(rest))

    return jax.tree.map(split_array, tree)
