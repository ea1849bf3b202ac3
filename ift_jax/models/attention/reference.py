"""Attention in plain XLA: dense, which is the reference, and in blocks of queries.

Shape suffixes: B rows, L query positions, S key positions, H query heads, G key-value heads
(H is a multiple of G), K width of a head, E = H * K; R = L * H / G query rows of a key-value head;
N query positions of a block, W distances.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import Tokens
from ift_jax.models.attention.relative_bias import bias_of_pairs

BLOCK_PAIRS = 1 << 20  # Pairs of a query and a key in a block of queries.
# exp() underflows to 0 after the row maximum is subtracted.
MASKED_SCORE = -1e30


def dense_attention(
    q_BxLxHxK: jax.Array,
    kv: KVPair,
    allowed_BxLxS: jax.Array,
    *,
    scale: float,
    softcap: float = 0.0,
    bias_HxLxS: jax.Array | None = None,
    sinks_H: jax.Array | None = None,
) -> jax.Array:
    """Compute `attention.attention` from all scores at once: BxLx(H*K), in q's dtype.

    The queries of the heads that share a key-value head become rows of one batched product, which
    is faster than repeating the keys.

    Args:
        q_BxLxHxK: Queries.
        kv: Keys and values, BxGxSxK.
        allowed_BxLxS: bool; which keys each query may attend to.
        scale: Multiplies the scores.
        softcap: If positive, scores become softcap * tanh(scores / softcap).
        bias_HxLxS: float32, added to the scores after the soft cap.
        sinks_H: As for `attention.attention`.
    """
    keys_BxGxSxK, values_BxGxSxK = kv
    B, L, H, K = q_BxLxHxK.shape
    G, S = keys_BxGxSxK.shape[1:3]
    r = H // G  # Query heads of a key-value head.
    # Rows are (position, head of the group), because positions are the major axis already.
    q_BxGxRxK = q_BxLxHxK.reshape(B, L, G, r, K).swapaxes(1, 2).reshape(B, G, L * r, K)
    product = "bgrk,bgsk->bgrs"
    scores = jnp.einsum(product, q_BxGxRxK, keys_BxGxSxK, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, G, L, r, S) * scale
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias_HxLxS is not None:
        scores += bias_HxLxS.reshape(G, r, L, S).swapaxes(1, 2)
    scores = jnp.where(allowed_BxLxS[:, None, :, None, :], scores, MASKED_SCORE)
    if sinks_H is None:
        weights = jax.nn.softmax(scores, axis=-1)
    else:
        sinks = sinks_H.astype(jnp.float32).reshape(1, G, 1, r, 1)
        log_sum = jax.nn.logsumexp(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - jnp.logaddexp(log_sum, sinks))
    weights_BxGxRxS = weights.astype(values_BxGxSxK.dtype).reshape(B, G, L * r, S)
    y_BxGxRxK = jnp.einsum("bgrs,bgsk->bgrk", weights_BxGxRxS, values_BxGxSxK)
    y_BxLxE = y_BxGxRxK.reshape(B, G, L, r, K).swapaxes(1, 2).reshape(B, L, H * K)
    return jnp.where(allowed_BxLxS.any(axis=-1, keepdims=True), y_BxLxE, 0)


class DistanceBias(NamedTuple):
    """A bias by distance, for queries that may be only a part of the row's."""

    bias_HxW: jax.Array  # float32; by distance, for all queries and keys of the row.
    first_query: jax.Array  # int32 scalar: the index of the first query in the row.


class _QueryBlock(NamedTuple):
    number: jax.Array  # int32 scalar, from 0.
    q_BxNxHxK: jax.Array
    tokens: Tokens


def blockwise_attention(
    q_BxLxHxK: jax.Array,
    kv: KVPair,
    queries: Tokens,
    mask_of: Callable[[Tokens], jax.Array],
    bias: DistanceBias | None,
    *,
    scale: float,
    softcap: float,
    sinks_H: jax.Array | None = None,
) -> jax.Array:
    """Compute `dense_attention` one block of queries at a time: BxLxHxK.

    No HxLxS array is ever stored: the scores, the mask and the bias of a block are computed again
    in the backward pass (after Rabe and Staats 2021, arXiv:2112.05682).

    Args:
        q_BxLxHxK: Queries.
        kv: Keys and values, BxGxSxK.
        queries: What `mask_of` reads of the queries.
        mask_of: Returns which keys the queries of a block may attend to, bool BxNxS.
        bias: Added to the scores after the soft cap.
        scale: As for `dense_attention`.
        softcap: As for `dense_attention`.
        sinks_H: As for `attention.attention`.
    """
    B, L, H, K = q_BxLxHxK.shape
    S = kv.keys_BxGxSxK.shape[2]
    N = _block_size(L, S)
    n_blocks = -(-L // N)
    if bias is not None:
        row_length = bias.bias_HxW.shape[1] - S + 1
        queries_from_first = row_length - bias.first_query
    # In float32, so that the blocks' gradients of keys and values add up in float32.
    wide_kv = jax.tree.map(lambda a: a.astype(jnp.float32), kv)

    def attend_block(block: _QueryBlock) -> jax.Array:
        q = block.q_BxNxHxK
        narrow_kv = jax.tree.map(lambda a: a.astype(q.dtype), wide_kv)
        bias_HxNxS = None
        if bias is not None:
            padded_HxW = jnp.pad(bias.bias_HxW, ((0, 0), (N, 0)))
            # The column of the smallest distance: from the block's last query to key 0.
            start = queries_from_first - block.number * N
            block_bias = jax.lax.dynamic_slice_in_dim(padded_HxW, start, S + N - 1, axis=1)
            bias_HxNxS = bias_of_pairs(block_bias, N)
        y = dense_attention(
            q,
            narrow_kv,
            mask_of(block.tokens),
            scale=scale,
            softcap=softcap,
            bias_HxLxS=bias_HxNxS,
            sinks_H=sinks_H,
        )
        return y.reshape(B, N, H, K)

    def split_blocks(a: jax.Array) -> jax.Array:
        a = jnp.pad(a, [(0, 0), (0, -L % N), *[(0, 0)] * (a.ndim - 2)])
        return a.reshape(B, -1, N, *a.shape[2:]).swapaxes(0, 1)

    q_blocks, token_blocks = jax.tree.map(split_blocks, (q_BxLxHxK, queries))
    blocks = _QueryBlock(jnp.arange(n_blocks), q_blocks, token_blocks)
    y = jax.lax.map(jax.checkpoint(attend_block), blocks)
    return y.swapaxes(0, 1).reshape(B, -1, H, K)[:, :L]


def _block_size(n_queries: int, n_keys: int) -> int:
    """Queries of a block: the largest power of two that keeps to BLOCK_PAIRS, at least 16."""
    power = max(BLOCK_PAIRS // n_keys, 1).bit_length() - 1
    return min(max(16, 1 << power), n_queries)
