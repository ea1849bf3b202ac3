"""Attention in plain XLA by tiles of queries and keys, for long rows on a CPU.

A block of queries visits the blocks of keys from the first to the last that any of its queries
attends to, and no other: the other examples of a packed row, keys after the queries, and keys
outside a window cost nothing. The method is FlashAttention-2's (Dao 2023, arXiv:2307.08691): the
softmax is corrected from tile to tile, and the backward pass computes the scores again, so that
memory grows with the length of the rows alone. Loops with a number of turns that only the batch
knows cannot be differentiated, so the gradient is written here.

Shape suffixes: B rows, L query positions, S key positions, H query heads, G key-value heads,
r = H / G query heads of one, K width of a head, W distances; N query positions and M key positions
of a tile, R = N * r query rows of a key-value head; T blocks of queries of all rows.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import KeySpan, Tokens
from ift_jax.models.attention.reference import MASKED_SCORE, DistanceBias
from ift_jax.models.attention.tiles import (
    BlockMask,
    Inputs,
    QueryBlock,
    TileOptions,
    cut_tile,
    key_block,
    query_blocks,
    tile_scores,
    visited_blocks,
)
from ift_jax.models.remat import ATTENTION_OUTPUT

BLOCK = 128  # The most queries, and the most keys, of a tile.


def tiled_attention(
    q_BxLxHxK: jax.Array,
    kv: KVPair,
    queries: Tokens,
    keys: Tokens,
    key_span: KeySpan,
    *,
    causal: bool,
    scale: float,
    softcap: float,
    window: jax.Array | None = None,
    bias: DistanceBias | None = None,
    sinks_H: jax.Array | None = None,
) -> jax.Array:
    """Compute softmax attention: BxLxHxK in q's dtype, differentiable in all but the mask.

    Args:
        q_BxLxHxK: Queries.
        kv: Keys and values, BxGxSxK.
        queries: The tokens that attend, BxL.
        keys: The tokens attended to, BxS.
        key_span: The first and last key that each query attends to.
        causal: As for `attention_mask`.
        scale: Multiplies the scores.
        softcap: If positive, scores become softcap * tanh(scores / softcap).
        window: As for `attention_mask`.
        bias: Added to the scores after the soft cap.
        sinks_H: As for `attention.attention`.
    """
    B, L, H, K = q_BxLxHxK.shape
    G, S = kv.keys_BxGxSxK.shape[1:3]
    N, M = min(BLOCK, L), min(BLOCK, S)
    n_blocks = -(-L // N)

    def cut_queries(a: jax.Array, fill: int = 0) -> jax.Array:
        """BxLx... becomes TxNx..."""
        widths = [(0, 0), (0, -L % N), *[(0, 0)] * (a.ndim - 2)]
        return jnp.pad(a, widths, constant_values=fill).reshape(-1, N, *a.shape[2:])

    def pad_keys(a: jax.Array, axis: int) -> jax.Array:
        widths = [(0, 0)] * a.ndim
        widths[axis] = (0, -S % M)
        return jnp.pad(a, widths)

    bias_HxW = None
    bias_start_T = jnp.zeros(B * n_blocks, jnp.int32)
    if bias is not None:
        # Columns of distances that no pair has, for the queries and keys that fill the last tiles.
        bias_HxW = jnp.pad(bias.bias_HxW, ((0, 0), (N, M)))
        row_length = bias.bias_HxW.shape[1] - S + 1
        last_query_T = bias.first_query + jnp.tile(jnp.arange(n_blocks), B) * N + N - 1
        bias_start_T = (N + row_length - 1 - last_query_T).astype(jnp.int32)
    inputs = Inputs(
        _rows_of_heads(cut_queries(q_BxLxHxK), G),
        KVPair(*(pad_keys(part, 2) for part in kv)),
        bias_HxW,
        None if sinks_H is None else sinks_H.astype(jnp.float32).reshape(G, 1, H // G),
    )
    spans = KeySpan(cut_queries(key_span.first_BxL, S), cut_queries(key_span.last_BxL, -1))
    mask = BlockMask(
        row_T=jnp.repeat(jnp.arange(B, dtype=jnp.int32), n_blocks),
        visits=visited_blocks(spans, M),
        queries=jax.tree.map(cut_queries, queries),
        keys=jax.tree.map(lambda part: pad_keys(part, 1), keys),
        window=window,
        bias_start_T=bias_start_T,
    )
    y_TxGxRxK = _attend(inputs, mask, TileOptions(M, causal, scale, softcap))
    y_TxNxGxrxK = y_TxGxRxK.reshape(-1, G, N, H // G, K).swapaxes(1, 2)
    return y_TxNxGxrxK.reshape(B, n_blocks * N, H, K)[:, :L]


def _rows_of_heads(q_TxNxHxK: jax.Array, n_groups: int) -> jax.Array:
    """The query heads of a key-value head become rows of one product: TxGxRxK."""
    T, N, H, K = q_TxNxHxK.shape
    q_TxGxNxrxK = q_TxNxHxK.reshape(T, N, n_groups, H // n_groups, K).swapaxes(1, 2)
    return q_TxGxNxrxK.reshape(T, n_groups, N * H // n_groups, K)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _attend(inputs: Inputs, mask: BlockMask, options: TileOptions) -> jax.Array:
    """The output, TxGxRxK."""
    return _forward(inputs, mask, options)[0]


class _Residuals(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    inputs: Inputs
    mask: BlockMask
    y_TxGxRxK: jax.Array
    lse_TxGxNxr: jax.Array  # float32; the logarithm of each query's sum of exponentials.


class _Sums(NamedTuple):
    """What the forward loop over key blocks carries, float32."""

    highest_GxNxr: jax.Array  # The highest score so far.
    sum_GxNxr: jax.Array  # The sum of exp(score - highest).
    y_GxRxK: jax.Array  # The sum of values times exp(score - highest).


def _forward(inputs: Inputs, mask: BlockMask, options: TileOptions) -> tuple[jax.Array, _Residuals]:
    _, G, R, K = inputs.q_TxGxRxK.shape
    N = mask.queries.positions_BxL.shape[1]
    M = options.keys_per_block
    r = R // N
    dtype = inputs.q_TxGxRxK.dtype

    def attend_block(block: QueryBlock) -> tuple[jax.Array, jax.Array]:
        def add_tile(j: jax.Array, sums: _Sums) -> _Sums:
            tile = cut_tile(inputs, mask, block, j * M, options)
            scores = tile_scores(block.q_GxRxK, tile.k_GxMxK, tile.bias_HxD, (G, N, r, M), options)
            scores = jnp.where(tile.allowed_Nx1xM, scores, MASKED_SCORE)
            highest_GxNxr = jnp.maximum(sums.highest_GxNxr, scores.max(axis=-1))
            exp = jnp.exp(scores - highest_GxNxr[..., None])
            # Until a query has seen a key its highest score is MASKED_SCORE, and exp(0) is 1.
            exp = jnp.where(tile.allowed_Nx1xM, exp, 0.0)
            kept_GxNxr = jnp.exp(sums.highest_GxNxr - highest_GxNxr)
            y_GxRxK = jnp.einsum(
                "grm,gmk->grk",
                exp.astype(dtype).reshape(G, R, M),
                tile.v_GxMxK,
                preferred_element_type=jnp.float32,
            )
            return _Sums(
                highest_GxNxr,
                sums.sum_GxNxr * kept_GxNxr + exp.sum(axis=-1),
                sums.y_GxRxK * kept_GxNxr.reshape(G, R, 1) + y_GxRxK,
            )

        sums = jax.lax.fori_loop(
            block.begin, block.end, add_tile, _first_sums(inputs, (G, N, r), (G, R, K))
        )
        # Where a query has seen no key (and there is no sink), y is zero and the sum must not be.
        sum_GxNxr = jnp.where(sums.sum_GxNxr > 0, sums.sum_GxNxr, 1.0)
        y_GxRxK = sums.y_GxRxK / sum_GxNxr.reshape(G, R, 1)
        return y_GxRxK.astype(dtype), sums.highest_GxNxr + jnp.log(sum_GxNxr)

    y_TxGxRxK, lse_TxGxNxr = jax.lax.map(attend_block, query_blocks(inputs, mask))
    # Named, so that a remat policy can keep the output and the sums, and visit no tile again.
    y_TxGxRxK = checkpoint_name(y_TxGxRxK, ATTENTION_OUTPUT)
    lse_TxGxNxr = checkpoint_name(lse_TxGxNxr, ATTENTION_OUTPUT)
    return y_TxGxRxK, _Residuals(inputs, mask, y_TxGxRxK, lse_TxGxNxr)


def _first_sums(inputs: Inputs, sums_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> _Sums:
    """Nothing, or the sink of each head, which has no value."""
    y_GxRxK = jnp.zeros(y_shape, jnp.float32)
    if inputs.sinks_Gx1xr is None:
        nothing = jnp.zeros(sums_shape, jnp.float32)
        return _Sums(jnp.full(sums_shape, MASKED_SCORE, jnp.float32), nothing, y_GxRxK)
    sinks_GxNxr = jnp.broadcast_to(inputs.sinks_Gx1xr, sums_shape)
    return _Sums(sinks_GxNxr, jnp.ones(sums_shape, jnp.float32), y_GxRxK)


class _KeyGradients(NamedTuple):
    """Gradients that the blocks of queries add to, float32, in the shapes of the inputs."""

    dk_BxGxSxK: jax.Array
    dv_BxGxSxK: jax.Array
    dbias_HxW: jax.Array | None


class _Gradients(NamedTuple):
    """What the backward loop over key blocks carries."""

    dq_GxRxK: jax.Array  # float32.
    of_keys: _KeyGradients


class _GivenBlock(NamedTuple):
    """A block of queries, and what the gradient needs of the forward pass."""

    block: QueryBlock
    dy_GxRxK: jax.Array
    lse_GxNxr: jax.Array
    # The mean over a query's keys, by their weights, of the gradients of these weights; float32.
    mean_GxNxr: jax.Array


def _backward(
    options: TileOptions, residuals: _Residuals, dy_TxGxRxK: jax.Array
) -> tuple[Inputs, None]:
    inputs, mask, y_TxGxRxK, lse_TxGxNxr = residuals
    dtype = inputs.q_TxGxRxK.dtype
    products = y_TxGxRxK.astype(jnp.float32) * dy_TxGxRxK.astype(jnp.float32)
    mean_TxGxNxr = products.sum(axis=-1).reshape(lse_TxGxNxr.shape)

    def backward_of_block(
        of_keys: _KeyGradients, given: _GivenBlock
    ) -> tuple[_KeyGradients, jax.Array]:
        def add_tile(j: jax.Array, sums: _Gradients) -> _Gradients:
            return _add_tile_gradients(sums, inputs, mask, given, j, options)

        dq_GxRxK = jnp.zeros(given.dy_GxRxK.shape, jnp.float32)
        sums = jax.lax.fori_loop(
            given.block.begin, given.block.end, add_tile, _Gradients(dq_GxRxK, of_keys)
        )
        return sums.of_keys, sums.dq_GxRxK.astype(dtype)

    nothing = jax.tree.map(
        lambda a: jnp.zeros(a.shape, jnp.float32), _KeyGradients(*inputs.kv, inputs.bias_HxW)
    )
    given = _GivenBlock(query_blocks(inputs, mask), dy_TxGxRxK, lse_TxGxNxr, mean_TxGxNxr)
    of_keys, dq_TxGxRxK = jax.lax.scan(backward_of_block, nothing, given)
    dsinks_Gx1xr = None
    if inputs.sinks_Gx1xr is not None:
        # A sink has no value, so its gradient is minus the mean, times the sink's own weight.
        weights_TxGxNxr = jnp.exp(inputs.sinks_Gx1xr - lse_TxGxNxr)
        dsinks_Gx1xr = -(weights_TxGxNxr * mean_TxGxNxr).sum(axis=(0, 2))[:, None]
    dkv = KVPair(of_keys.dk_BxGxSxK.astype(dtype), of_keys.dv_BxGxSxK.astype(dtype))
    return Inputs(dq_TxGxRxK, dkv, of_keys.dbias_HxW, dsinks_Gx1xr), None


def _add_tile_gradients(
    sums: _Gradients,
    inputs: Inputs,
    mask: BlockMask,
    given: _GivenBlock,
    j: jax.Array,
    options: TileOptions,
) -> _Gradients:
    """Add the gradients of the tile of a block of queries and the key block j."""
    block, dy_GxRxK, lse_GxNxr, mean_GxNxr = given
    G, N, r = lse_GxNxr.shape
    M = options.keys_per_block
    tile = cut_tile(inputs, mask, block, j * M, options)
    scores, pull_scores = jax.vjp(
        lambda q, k, bias: tile_scores(q, k, bias, (G, N, r, M), options),
        block.q_GxRxK,
        tile.k_GxMxK,
        tile.bias_HxD,
    )
    weights = jnp.exp(scores - lse_GxNxr[..., None])
    weights = jnp.where(tile.allowed_Nx1xM, weights, 0.0)
    dweights = jnp.einsum(
        "grk,gmk->grm", dy_GxRxK, tile.v_GxMxK, preferred_element_type=jnp.float32
    ).reshape(weights.shape)
    dq_GxRxK, dk_GxMxK, dbias_HxD = pull_scores(weights * (dweights - mean_GxNxr[..., None]))
    dv_GxMxK = jnp.einsum(
        "grm,grk->gmk",
        weights.astype(dy_GxRxK.dtype).reshape(G, N * r, M),
        dy_GxRxK,
        preferred_element_type=jnp.float32,
    )

    def add(whole: jax.Array, part_GxMxK: jax.Array) -> jax.Array:
        before_GxMxK = key_block(whole, block.row, j * M, M)
        at = (block.row, 0, j * M, 0)
        return jax.lax.dynamic_update_slice(whole, (before_GxMxK + part_GxMxK)[None], at)

    dk_BxGxSxK, dv_BxGxSxK, dbias_HxW = sums.of_keys
    if dbias_HxW is not None:
        column = block.bias_start + j * M
        before_HxD = jax.lax.dynamic_slice_in_dim(dbias_HxW, column, N + M - 1, axis=1)
        dbias_HxW = jax.lax.dynamic_update_slice_in_dim(
            dbias_HxW, before_HxD + dbias_HxD, column, axis=1
        )
    of_keys = _KeyGradients(add(dk_BxGxSxK, dk_GxMxK), add(dv_BxGxSxK, dv_GxMxK), dbias_HxW)
    return _Gradients(sums.dq_GxRxK + dq_GxRxK, of_keys)


_attend.defvjp(_forward, _backward)
