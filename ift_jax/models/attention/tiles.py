"""A tile of attention: a block of queries and a block of keys, its scores, and its visible pairs.

`tiled` loops over them. Shape suffixes as there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import KeySpan, Tokens, attention_mask
from ift_jax.models.attention.relative_bias import bias_of_pairs


class TileOptions(NamedTuple):
    """What is the same for all tiles."""

    keys_per_block: int  # M.
    causal: bool
    scale: float
    softcap: float


class Inputs(NamedTuple):
    """What the output is differentiated by."""

    q_TxGxRxK: jax.Array
    kv: KVPair  # BxGxSxK, where S is a whole number of blocks.
    bias_HxW: jax.Array | None  # Padded by a tile on either side.
    sinks_Gx1xr: jax.Array | None  # float32.


class Visits(NamedTuple):
    """The half-open range of the key blocks that each block of queries visits; may be empty."""

    begin_T: jax.Array  # int32.
    end_T: jax.Array


class BlockMask(NamedTuple):
    """What each block of queries attends to."""

    row_T: jax.Array  # int32; the row of the block.
    visits: Visits
    queries: Tokens  # TxN.
    keys: Tokens  # BxS.
    window: jax.Array | None  # int32 scalar.
    bias_start_T: jax.Array  # int32; the column of the bias of the block's last query and key 0.


class QueryBlock(NamedTuple):
    """A block of queries, and what the loop over key blocks must know about it."""

    q_GxRxK: jax.Array
    tokens: Tokens  # 1xN.
    row: jax.Array  # int32 scalar.
    begin: jax.Array
    end: jax.Array
    bias_start: jax.Array


class Tile(NamedTuple):
    """The keys, values, and bias of a tile, and which of its pairs are visible."""

    k_GxMxK: jax.Array
    v_GxMxK: jax.Array
    bias_HxD: jax.Array | None  # By distance: D = N + M - 1.
    allowed_Nx1xM: jax.Array


def visited_blocks(key_span: KeySpan, keys_per_block: int) -> Visits:
    """The key blocks from the first to the last that a query of a block attends to.

    Args:
        key_span: That of each query, TxN.
        keys_per_block: M.
    """
    first_T = key_span.first_BxL.min(axis=1)
    last_T = key_span.last_BxL.max(axis=1)
    return Visits(first_T // keys_per_block, last_T // keys_per_block + 1)


def query_blocks(inputs: Inputs, mask: BlockMask) -> QueryBlock:
    """All blocks of queries, for a scan."""
    return QueryBlock(
        q_GxRxK=inputs.q_TxGxRxK,
        tokens=jax.tree.map(lambda part: part[:, None], mask.queries),
        row=mask.row_T,
        begin=mask.visits.begin_T,
        end=mask.visits.end_T,
        bias_start=mask.bias_start_T,
    )


def key_block(array: jax.Array, row: jax.Array, start: jax.Array, size: int) -> jax.Array:
    """GxMxK of BxGxSxK."""
    _, G, _, K = array.shape
    return jax.lax.dynamic_slice(array, (row, 0, start, 0), (1, G, size, K))[0]


def cut_tile(
    inputs: Inputs, mask: BlockMask, block: QueryBlock, start: jax.Array, options: TileOptions
) -> Tile:
    """The tile of a block of queries and the key block that begins at `start`."""
    N = block.tokens.positions_BxL.shape[1]
    M = options.keys_per_block
    keys_1xM = jax.tree.map(
        lambda part: jax.lax.dynamic_slice(part, (block.row, start), (1, M)), mask.keys
    )
    allowed_1xNxM = attention_mask(
        block.tokens, keys_1xM, causal=options.causal, window=mask.window
    )
    bias_HxD = None
    if inputs.bias_HxW is not None:
        bias_HxD = jax.lax.dynamic_slice_in_dim(
            inputs.bias_HxW, block.bias_start + start, N + M - 1, axis=1
        )
    return Tile(
        key_block(inputs.kv.keys_BxGxSxK, block.row, start, M),
        key_block(inputs.kv.values_BxGxSxK, block.row, start, M),
        bias_HxD,
        allowed_1xNxM[0, :, None, :],
    )


def tile_scores(
    q_GxRxK: jax.Array,
    k_GxMxK: jax.Array,
    bias_HxD: jax.Array | None,
    shape: tuple[int, ...],
    options: TileOptions,
) -> jax.Array:
    """The scores of a tile without its mask, float32, in the shape (G, N, r, M)."""
    G, N, r, M = shape
    scores = jnp.einsum("grk,gmk->grm", q_GxRxK, k_GxMxK, preferred_element_type=jnp.float32)
    scores = scores.reshape(shape) * options.scale
    if options.softcap:
        scores = options.softcap * jnp.tanh(scores / options.softcap)
    if bias_HxD is not None:
        scores += bias_of_pairs(bias_HxD, N).reshape(G, r, N, M).swapaxes(1, 2)
    return scores
