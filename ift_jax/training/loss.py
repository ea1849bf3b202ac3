"""Cross-entropy through the output head, without ever holding full logits.

The positions that carry loss are moved to the front, then the head runs over chunks of them:
each chunk's logits, loss and gradient are made at once and thrown away, and the chunks past
the last trained position are never computed. On a batch of which 60% is supervised this is
faster than the full product as well as smaller.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax import partitioning

LOGITS_BUDGET = 2**24  # Logits a chunk at the most: 64 MiB in float32.


class HeadLoss(NamedTuple):
    """Options of the loss at one position.

    Attributes:
        softcap: logits become `softcap * tanh(logits / softcap)`; 0: none (Gemma 2).
        z_loss: adds `z_loss * logsumexp(logits) ** 2` (T5X, PaLM).
        label_smoothing: this mass is spread evenly over the other words; the entropy of
            the smoothed target is subtracted, so that the lowest loss stays 0 (T5X).
        chunk: positions a chunk; 0: from the vocabulary's size.
    """

    softcap: float = 0.0
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    chunk: int = 0


class TokenLoss(NamedTuple):
    """What the head says of each position, all B x L; zero where nothing is trained.

    Attributes:
        nll: plain negative log-likelihood, float32.
        z: the z-loss term, float32.
        correct: whether the likeliest word is the target, float32 0 or 1.
    """

    nll: jax.Array
    z: jax.Array
    correct: jax.Array


def head_loss(
    x_BxLxD: jax.Array,
    w_DxV: jax.Array,
    targets_BxL: jax.Array,
    weights_BxL: jax.Array,
    options: HeadLoss,
) -> tuple[jax.Array, TokenLoss]:
    """Sum over all positions of weight times loss, and its parts a position.

    Only the sum is differentiable. Sums over a chunk are in float32 whatever `x` is.

    Args:
        x_BxLxD: final states, float32 or bfloat16.
        w_DxV: the output head, float32.
        targets_BxL: int32 ids.
        weights_BxL: float32; positions of weight 0 cost nothing.
        options: see `HeadLoss`.

    Returns:
        The float32 sum (not normalised) and the parts.
    """
    batch, length, d_model = x_BxLxD.shape
    groups = _local_groups(batch)
    # One row a device: the trained positions of a device are gathered without communication.
    rows = (groups, batch * length // groups) if groups else (batch, length)
    total, parts = _grouped_loss(
        x_BxLxD.reshape(*rows, d_model),
        w_DxV,
        targets_BxL.reshape(rows),
        weights_BxL.astype(jnp.float32).reshape(rows),
        options,
    )
    return total, TokenLoss(*(part.reshape(batch, length) for part in parts))


def _local_groups(batch: int) -> int:
    """Into how many rows the batch may be merged without moving data; 0: not at all."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    shards = math.prod(mesh.shape[axis] for axis in partitioning.LOGICAL_AXIS_RULES["batch"])
    return shards if mesh.shape["sequence"] == 1 and batch % shards == 0 else 0


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _grouped_loss(
    x: jax.Array, w: jax.Array, targets: jax.Array, weights: jax.Array, options: HeadLoss
) -> tuple[jax.Array, TokenLoss]:
    total, parts, _, _ = _chunked(x, w, targets, weights, options, with_gradient=False)
    return total, parts


def _forward(
    x: jax.Array, w: jax.Array, targets: jax.Array, weights: jax.Array, options: HeadLoss
) -> tuple[Any, Any]:
    total, parts, dx, dw = _chunked(x, w, targets, weights, options, with_gradient=True)
    return (total, parts), (dx, dw, targets, weights)


def _backward(options: HeadLoss, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    del options
    dx, dw, targets, weights = residuals
    scale = cotangents[0]  # The parts are for reporting: no gradient flows through them.
    return (
        (dx * scale).astype(dx.dtype),
        dw * scale,
        np.zeros(targets.shape, jax.dtypes.float0),
        jnp.zeros_like(weights),
    )


_grouped_loss.defvjp(_forward, _backward)


def _chunked(
    x_GxTxD: jax.Array,
    w_DxV: jax.Array,
    targets_GxT: jax.Array,
    weights_GxT: jax.Array,
    options: HeadLoss,
    *,
    with_gradient: bool,
) -> tuple[jax.Array, TokenLoss, jax.Array | None, jax.Array | None]:
    """The loss sum, its parts, and its gradient by x and w where it is asked for."""
    groups, length, d_model = x_GxTxD.shape
    vocab = w_DxV.shape[1]
    chunk = options.chunk or max(64, min(1024, LOGITS_BUDGET // vocab, -(-length // 8)))
    chunk = min(chunk, length)
    padding = -length % chunk
    dtype = x_GxTxD.dtype
    w = w_DxV.astype(dtype)

    # Trained positions first, each kind in its order: a stable partition by running counts.
    trained_GxT = weights_GxT != 0
    n_trained_Gx1 = jnp.sum(trained_GxT, axis=1, keepdims=True)
    back_GxT = jnp.where(
        trained_GxT,
        jnp.cumsum(trained_GxT, axis=1) - 1,
        n_trained_Gx1 + jnp.cumsum(~trained_GxT, axis=1) - 1,
    )
    place_GxT = jnp.broadcast_to(jnp.arange(length), (groups, length))
    order_GxT = jax.vmap(lambda back, place: jnp.zeros_like(place).at[back].set(place))(
        back_GxT, place_GxT
    )

    def gather(a: jax.Array) -> jax.Array:
        index = order_GxT[..., None] if a.ndim == 3 else order_GxT
        a = jnp.take_along_axis(a, index, axis=1)
        return jnp.pad(a, ((0, 0), (0, padding)) + ((0, 0),) * (a.ndim - 2))

    x, targets, weights = gather(x_GxTxD), gather(targets_GxT), gather(weights_GxT)
    n_chunks = -(-jnp.max(n_trained_Gx1) // chunk)

    def body(i: jax.Array, carry: Any) -> Any:
        parts, dx, dw = carry
        start = i * chunk
        x_GxCxD = jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=1)
        targets_GxC = jax.lax.dynamic_slice_in_dim(targets, start, chunk, axis=1)
        weights_GxC = jax.lax.dynamic_slice_in_dim(weights, start, chunk, axis=1)
        loss, new_parts, dlogits_GxCxV = _chunk_loss(x_GxCxD, w, targets_GxC, weights_GxC, options)
        trained = weights_GxC != 0
        parts = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, jnp.where(trained, new, 0.0), start, axis=1)
            for old, new in zip(parts, (loss, *new_parts), strict=True)
        )
        if with_gradient:
            dlogits_GxCxV = dlogits_GxCxV.astype(dtype)
            dx_GxCxD = (dlogits_GxCxV.reshape(-1, vocab) @ w.T).reshape(x_GxCxD.shape)
            dx = jax.lax.dynamic_update_slice_in_dim(dx, dx_GxCxD, start, axis=1)
            # One sum a device: reducing over devices once, after the loop, not in every turn.
            dw = dw + jnp.einsum(
                "gcd,gcv->gdv", x_GxCxD, dlogits_GxCxV, preferred_element_type=jnp.float32
            )
        return parts, dx, dw

    zeros = jnp.zeros((groups, length + padding), jnp.float32)
    carry: Any = ((zeros,) * 4, None, None)
    if with_gradient:
        dw = jnp.zeros((groups, d_model, vocab), jnp.float32)
        carry = ((zeros,) * 4, jnp.zeros_like(x), partitioning.constrain(dw, "batch", None, None))
    parts, dx, dw = jax.lax.fori_loop(0, n_chunks, body, carry)

    loss, *parts = (jnp.take_along_axis(part, back_GxT, axis=1) for part in parts)
    if with_gradient:
        dx = jnp.take_along_axis(dx, back_GxT[..., None], axis=1)
        dw = dw.sum(axis=0).astype(w_DxV.dtype)
    return jnp.sum(loss * weights_GxT), TokenLoss(*parts), dx, dw


def _chunk_loss(
    x_GxCxD: jax.Array,
    w_DxV: jax.Array,
    targets_GxC: jax.Array,
    weights_GxC: jax.Array,
    options: HeadLoss,
) -> tuple[jax.Array, tuple[jax.Array, ...], jax.Array]:
    """Loss and its parts (G x C), and weight * d loss / d raw logits (G x C x V)."""
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
        cross = log_z - (1 - smoothing) * target_logit - low * others
        loss = cross - entropy + z
        soft_target = jnp.where(is_target, 1 - smoothing, low)
    else:
        loss = nll + z
        soft_target = is_target.astype(jnp.float32)
    dlogits = exp / normalizer * (1 + 2 * options.z_loss * log_z)[..., None] - soft_target
    if options.softcap:
        dlogits *= 1 - jnp.square(logits / options.softcap)
    correct = (target_logit >= highest[..., 0]).astype(jnp.float32)
    return loss, (nll, z, correct), dlogits * weights_GxC[..., None]


def normalized_weights(
    weights_BxL: jax.Array, segment_ids_BxL: jax.Array, normalization: str, constant: float
) -> tuple[jax.Array, jax.Array]:
    """Weights and the one denominator of a global batch.

    The loss of a batch is `sum(weights * token_loss) / denominator`, whichever way the sum is
    cut: over devices, microbatches, packed rows or padding.

    * "tokens": the mean over trained tokens, each by its weight.
    * "examples": the mean over examples of the example's own weighted mean. Packing never
      splits an example, so its weights are summed inside its row and segment.
    * "constant": the sum over a fixed number (T5X's configs use batch x target length).
    * "sum": the plain sum (T5X's default).

    Args:
        weights_BxL: float32 weights of the target tokens.
        segment_ids_BxL: int32, 0 for padding.
        normalization: one of the four names.
        constant: the denominator of "constant".
    """
    if normalization == "examples":
        length = weights_BxL.shape[1]
        sums_BxS = jax.vmap(lambda w, s: jax.ops.segment_sum(w, s, length + 1))(
            weights_BxL, segment_ids_BxL
        )
        total_BxL = jnp.take_along_axis(sums_BxS, segment_ids_BxL, axis=1)
        weights_BxL = jnp.where(total_BxL > 0, weights_BxL / jnp.maximum(total_BxL, 1e-30), 0.0)
        # Counted, not summed: the number of examples is exact in float32.
        denominator = jnp.sum(sums_BxS[:, 1:] > 0).astype(jnp.float32)
    elif normalization == "tokens":
        denominator = jnp.sum(weights_BxL)
    else:
        denominator = jnp.float32(constant if normalization == "constant" else 1.0)
    return weights_BxL, jnp.maximum(denominator, 1e-30)
