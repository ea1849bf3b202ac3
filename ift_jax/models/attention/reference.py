"""Attention in plain XLA: dense (the reference) and in blocks of queries."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.models.attention.mask import Tokens, by_place

BLOCK_PAIRS = 1 << 20  # Of a block.


HIDDEN_SCORE = -1e30  # Of a hidden key: exp() of it is exactly 0 beside any visible one.


class KVPair(NamedTuple):
    """Keys and values with the heads before the positions: the layout that products read."""

    keys_BxGxSxK: jax.Array
    values_BxGxSxK: jax.Array

    def write(self, new: "KVPair", slot: jax.Array) -> "KVPair":
        """Puts `new` (a few positions) at `slot`, an int32 scalar, of all rows."""
        put = jax.lax.dynamic_update_slice_in_dim
        return KVPair(*(put(old, n, slot, axis=2) for old, n in zip(self, new, strict=True)))


def blockwise(
    q_BxLxHxK: jax.Array,
    keys_values: KVPair,
    queries: Tokens,
    sees: Callable[[Tokens], jax.Array],
    bias: tuple[jax.Array, jax.Array] | None,
    *,
    scale: float,
    softcap: float,
) -> jax.Array:
    """`dense` for a block of queries after the other: BxLxHxK; no HxLxS is ever stored.

    The scores, the mask and the bias of a block are computed again in the backward pass (after
    Rabe and Staats 2021, arXiv:2112.05682). `sees` gives the mask of some queries; `bias` is one
    by distance (HxW) and where in it the distance 1 - (first query) stands, plus one.
    """
    (B, L, H, K), S = q_BxLxHxK.shape, keys_values.keys_BxGxSxK.shape[2]
    n = max(16, 1 << max(BLOCK_PAIRS // S, 1).bit_length() - 1)  # Queries of a block.
    n = min(n, L)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), keys_values)  # Gradients add up in it.

    def of_block(block: Any) -> jax.Array:
        i, q, tokens = block
        kv = jax.tree.map(lambda a: a.astype(q.dtype), wide)
        bias_HxNxS = None
        if bias is not None:
            padded_HxW = jnp.pad(bias[0], ((0, 0), (n, 0)))
            of_n = jax.lax.dynamic_slice_in_dim(padded_HxW, bias[1] - i * n, S + n - 1, axis=1)
            bias_HxNxS = by_place(of_n, n)
        y = dense(q, kv, sees(tokens), scale=scale, softcap=softcap, bias_HxLxS=bias_HxNxS)
        return y.reshape(B, n, H, K)

    def cut(a: jax.Array) -> jax.Array:
        a = jnp.pad(a, [(0, 0), (0, -L % n), *[(0, 0)] * (a.ndim - 2)])
        return a.reshape(B, -1, n, *a.shape[2:]).swapaxes(0, 1)

    blocks = jax.tree.map(cut, (q_BxLxHxK, queries))
    y = jax.lax.map(jax.checkpoint(of_block), (jnp.arange(-(-L // n)), *blocks))
    return y.swapaxes(0, 1).reshape(B, -1, H, K)[:, :L]


def dense(
    q_BxLxHxK: jax.Array,
    keys_values: KVPair,
    visible_BxLxS: jax.Array,
    *,
    scale: float,
    softcap: float = 0.0,
    bias_HxLxS: jax.Array | None = None,
) -> jax.Array:
    """`attention` with all scores at once, in plain products: the reference.

    The queries of the heads that share a key-value head become rows of one batched product,
    which is faster than repeating the keys.
    """
    keys_BxGxSxK, values_BxGxSxK = keys_values
    B, L, H, K = q_BxLxHxK.shape
    G, S = keys_BxGxSxK.shape[1:3]
    r = H // G
    # Rows are (position, head of the group): positions stay the major axis, as they were.
    q_BxGxRxK = q_BxLxHxK.reshape(B, L, G, r, K).swapaxes(1, 2).reshape(B, G, L * r, K)
    product = "bgrk,bgsk->bgrs"
    scores = jnp.einsum(product, q_BxGxRxK, keys_BxGxSxK, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, G, L, r, S) * scale
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias_HxLxS is not None:
        scores += bias_HxLxS.reshape(G, r, L, S).swapaxes(1, 2)
    scores = jnp.where(visible_BxLxS[:, None, :, None, :], scores, HIDDEN_SCORE)
    weights = jax.nn.softmax(scores, axis=-1)
    weights_BxGxRxS = weights.astype(values_BxGxSxK.dtype).reshape(B, G, L * r, S)
    y_BxGxRxK = jnp.einsum("bgrs,bgsk->bgrk", weights_BxGxRxS, values_BxGxSxK)
    y_BxLxE = y_BxGxRxK.reshape(B, G, L, r, K).swapaxes(1, 2).reshape(B, L, H * K)
    return jnp.where(visible_BxLxS.any(axis=-1, keepdims=True), y_BxLxE, 0)
