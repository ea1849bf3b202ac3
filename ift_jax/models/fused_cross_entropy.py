"""Fused linear cross-entropy: the output head and the loss in one pass over chunks."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.sharding import fsdp, rules

# Logits a chunk at the most: 64 MiB in float32 on CPU. Elsewhere 256 MiB: each chunk reads the head
# and adds to its gradient, both whole, so that small ones wait for memory.
LOGITS_BUDGET, LOGITS_BUDGET_ELSEWHERE = 2**24, 2**26


class HeadLoss(NamedTuple):
    """Options of the loss at one position.

    Label smoothing spreads its mass evenly over the other words; the entropy of the smoothed
    target is subtracted, so that the lowest loss stays 0 (T5X).
    """

    softcap: float = 0.0  # Logits become softcap * tanh(logits / softcap); 0: none (Gemma 2).
    z_loss: float = 0.0  # Adds z_loss * logsumexp(logits) ** 2 (T5X, PaLM).
    label_smoothing: float = 0.0
    chunk: int = 0  # Positions a chunk; 0: from the vocabulary's size.


class TokenLoss(NamedTuple):
    """What the head says of each position, BxL float32 each; zero where nothing is trained."""

    nll: jax.Array  # Plain negative log-likelihood.
    z: jax.Array  # The z-loss term.
    correct: jax.Array  # 1 where the likeliest word is the target, else 0.


def head_loss(
    x_BxLxD: jax.Array,
    w_DxV: jax.Array,
    targets_BxL: jax.Array,
    weights_BxL: jax.Array,
    options: HeadLoss,
) -> tuple[jax.Array, TokenLoss]:
    """Sum over all positions of weight times loss (float32, not normalised), and its parts.

    Only the sum is differentiable. Sums over a chunk are in float32 whatever `x` is, float32 or
    bfloat16; the head is float32, targets are int32. Positions of weight 0 cost nothing.
    """
    batch, length, d_model = x_BxLxD.shape
    rows = head_rows(batch, length)
    targets, weights = targets_BxL.reshape(rows), weights_BxL.astype(jnp.float32).reshape(rows)
    total, parts = _grouped_loss(x_BxLxD.reshape(*rows, d_model), w_DxV, targets, weights, options)
    return total, TokenLoss(*(part.reshape(batch, length) for part in parts))


def head_rows(batch: int, length: int) -> tuple[int, int]:
    """How many rows of how many positions the head makes of a batch, by the mesh that is set."""
    # One row a device: the trained positions of a device are gathered without communication.
    rows = rules.batch_shards(batch) or batch
    return rows, batch * length // rows


def chunk_length(length: int, vocab: int, chosen: int = 0) -> int:
    """Positions of a row of `length` that the head takes at a time; `chosen` 0: by the sizes."""
    budget = LOGITS_BUDGET if rules.platform() == "cpu" else LOGITS_BUDGET_ELSEWHERE
    return min(chosen or max(64, min(1024, budget // vocab, -(-length // 8))), length)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _grouped_loss(
    x: jax.Array, w: jax.Array, targets: jax.Array, weights: jax.Array, options: HeadLoss
) -> tuple[jax.Array, TokenLoss]:
    return _chunked(x, w, targets, weights, options, gradient="none")[:2]


def _forward(x: Any, w: Any, targets: Any, weights: Any, options: HeadLoss) -> tuple[Any, Any]:
    gradient = "both" if w.perturbed else "x"  # A frozen head has none.
    total, parts, dx, dw = _chunked(
        x.value, w.value, targets.value, weights.value, options, gradient=gradient
    )
    return (total, parts), (dx, dw)


def _backward(options: HeadLoss, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    dx, dw = residuals
    scale = cotangents[0]  # The parts are for reporting: no gradient flows through them.
    return (dx * scale).astype(dx.dtype), None if dw is None else dw * scale, None, None


_grouped_loss.defvjp(_forward, _backward, symbolic_zeros=True)


def _chunked(
    x_GxTxD: jax.Array,
    w_DxV: jax.Array,
    targets_GxT: jax.Array,
    weights_GxT: jax.Array,
    options: HeadLoss,
    *,
    gradient: str,
) -> tuple[jax.Array, TokenLoss, jax.Array | None, jax.Array | None]:
    """The loss sum, its parts, and its gradient by x and w ("none", "x" or "both")."""
    groups, length, d_model = x_GxTxD.shape
    vocab = w_DxV.shape[1]
    chunk = chunk_length(length, vocab, options.chunk)
    padding = -length % chunk
    # Gathered once, before the loop, and cast while it is still cut: half of the bytes.
    w = rules.constrain(w_DxV.astype(x_GxTxD.dtype), "embed", "vocab")
    w = fsdp.gather(w, ("embed", "vocab"))

    # Trained positions first, each kind in its order: a stable partition by running counts.
    trained_GxT = weights_GxT != 0
    n_trained_Gx1 = jnp.sum(trained_GxT, axis=1, keepdims=True)
    place_at_end_GxT = n_trained_Gx1 + jnp.cumsum(~trained_GxT, axis=1)
    back_GxT = jnp.where(trained_GxT, jnp.cumsum(trained_GxT, axis=1), place_at_end_GxT) - 1
    place_T = jnp.arange(length)
    order_GxT = jax.vmap(lambda back: jnp.zeros_like(place_T).at[back].set(place_T))(back_GxT)

    def gather(a: jax.Array) -> jax.Array:
        index = order_GxT[..., None] if a.ndim == 3 else order_GxT
        a = jnp.take_along_axis(a, index, axis=1)
        return jnp.pad(a, ((0, 0), (0, padding)) + ((0, 0),) * (a.ndim - 2))

    ordered = gather(x_GxTxD), gather(targets_GxT), gather(weights_GxT)

    def body(i: jax.Array, carry: Any) -> Any:
        parts, dx, dw = carry
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * chunk, axis=1)
        x_GxCxD, targets_GxC, weights_GxC = (
            jax.lax.dynamic_slice_in_dim(a, i * chunk, chunk, axis=1) for a in ordered
        )
        *new_parts, dlogits_GxCxV = _chunk_loss(x_GxCxD, w, targets_GxC, weights_GxC, options)
        parts = tuple(
            put(old, jnp.where(weights_GxC != 0, new, 0.0))
            for old, new in zip(parts, new_parts, strict=True)
        )
        if gradient != "none":
            dlogits_GxCxV = dlogits_GxCxV.astype(w.dtype)
            dx = put(dx, (dlogits_GxCxV.reshape(-1, vocab) @ w.T).reshape(x_GxCxD.shape))
        if gradient == "both":
            # One sum a device: reducing over devices once, after the loop, not in every turn.
            dw += jnp.einsum(
                "gcv,gcd->gvd", dlogits_GxCxV, x_GxCxD, preferred_element_type=jnp.float32
            )
        return parts, dx, dw

    zeros = jnp.zeros((groups, length + padding), jnp.float32)
    dx = None if gradient == "none" else jnp.zeros_like(ordered[0])
    dw = None
    if gradient == "both":
        # Transposed: so the sum over devices, which is cut along D, takes it as it lies. The
        # other way round a second one, 2 GiB of Llama-3.1-8B's, was made for it.
        dw = jnp.zeros((groups, vocab, d_model), jnp.float32)
        dw = rules.constrain(dw, "batch", "vocab", None)
    carry: Any = ((zeros,) * 4, dx, dw)
    n_chunks = -(-jnp.max(n_trained_Gx1) // chunk)
    parts, dx, dw = jax.lax.fori_loop(0, n_chunks, body, carry)

    loss, *parts = (jnp.take_along_axis(part, back_GxT, axis=1) for part in parts)
    if dx is not None:
        dx = jnp.take_along_axis(dx, back_GxT[..., None], axis=1)
    if dw is not None:
        dw = fsdp.scatter(dw, ("vocab", "embed")).T.astype(w_DxV.dtype)
        # Until it is cut, `dw` is whole on every device: before the backward pass that `dx` starts.
        dx, dw = jax.lax.optimization_barrier((dx, dw))
    return jnp.sum(loss * weights_GxT), TokenLoss(*parts), dx, dw


def _chunk_loss(
    x_GxCxD: jax.Array,
    w_DxV: jax.Array,
    targets_GxC: jax.Array,
    weights_GxC: jax.Array,
    options: HeadLoss,
) -> tuple[jax.Array, ...]:
    """Loss and its three parts (GxC), and weight * d loss / d raw logits (GxCxV)."""
    vocab = w_DxV.shape[1]
    raw = jnp.einsum("gcd,dv->gcv", x_GxCxD, w_DxV, preferred_element_type=jnp.float32)
    logits = options.softcap * jnp.tanh(raw / options.softcap) if options.softcap else raw
    highest = jnp.max(logits, axis=-1, keepdims=True)
    exp = jnp.exp(logits - highest)
    normalizer = jnp.sum(exp, axis=-1, keepdims=True)
    log_z = (jnp.log(normalizer) + highest)[..., 0]
    target_logit = jnp.take_along_axis(logits, targets_GxC[..., None], axis=-1)[..., 0]
    nll = log_z - target_logit
    z = options.z_loss * jnp.square(log_z)

    smoothing = options.label_smoothing
    is_target = jax.nn.one_hot(targets_GxC, vocab, dtype=jnp.bool_)
    if smoothing:
        low = smoothing / (vocab - 1)
        entropy = -((1 - smoothing) * math.log(1 - smoothing) if smoothing < 1 else 0.0)
        entropy -= (vocab - 1) * low * math.log(low)
        others = jnp.sum(logits, axis=-1) - target_logit
        loss = log_z - (1 - smoothing) * target_logit - low * others - entropy + z
        soft_target = jnp.where(is_target, 1 - smoothing, low)
    else:
        loss = nll + z
        soft_target = is_target.astype(jnp.float32)
    dlogits = exp / normalizer * (1 + 2 * options.z_loss * log_z)[..., None] - soft_target
    if options.softcap:
        dlogits *= 1 - jnp.square(logits / options.softcap)
    correct = (target_logit >= highest[..., 0]).astype(jnp.float32)
    return loss, nll, z, correct, dlogits * weights_GxC[..., None]
