"""Splash attention on TPU: JAX's own Pallas kernel, told at run time which blocks to visit.

In a row of whole segments, the keys that a query attends to are an interval inside its segment.
The kernel masks by that interval and by segment ids, so packing, prefixes and windows (even a
window whose size is known only inside the scan over layers) are all the same to it. It skips a
block of keys if no query of the block attends to it, so packed examples do not pay for each other.
Which blocks are visited is decided for each row.

Shape suffixes as in `attention`; N blocks of queries, M blocks of keys.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, SegmentIds
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as library
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import KeySpan
from ift_jax.models.remat import ATTENTION_OUTPUT

BLOCK = 512  # Queries and keys of a block, in rows of at least two blocks.
LANES = 128  # The width of the TPU's vectors: shorter rows are padded to a multiple of it.


def splash_attention(
    q_BxLxHxK: jax.Array,
    kv: KVPair,
    q_segments_BxL: jax.Array,
    k_segments_BxS: jax.Array,
    key_span: KeySpan,
    *,
    scale: float,
    softcap: float,
    windowed: bool,
    interpret: bool,
) -> jax.Array:
    """Compute softmax attention: BxLxHxK in q's dtype, differentiable in q, keys and values.

    Args:
        q_BxLxHxK: Queries.
        kv: Keys and values, BxGxSxK.
        q_segments_BxL: int32; queries attend to keys of the same segment id.
        k_segments_BxS: int32.
        key_span: The first and last key that each query attends to. A query for which last < first
            gets zero, and its gradients are zero.
        scale: Multiplies the scores.
        softcap: If positive, scores become softcap * tanh(scores / softcap).
        windowed: Whether the first key of the span matters. If not, the span must start where the
            segment starts.
        interpret: Whether to run the kernel outside a TPU, which is slow.
    """
    L = q_BxLxHxK.shape[1]
    S = kv.keys_BxGxSxK.shape[2]
    block_q, q_padding = _block_and_padding(L)
    block_k, k_padding = _block_and_padding(S)
    sizes = BlockSizes(
        block_q=block_q,
        block_kv=block_k,
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_q_dq=block_q,
        block_kv_dq=block_k,
    )

    def attend_row(
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        q_segments_L: jax.Array,
        k_segments_S: jax.Array,
        first_L: jax.Array,
        last_L: jax.Array,
    ) -> jax.Array:
        kernel = _row_kernel(
            first_L,
            last_L,
            sizes,
            S + k_padding,
            softcap=softcap,
            windowed=windowed,
            interpret=interpret,
        )
        return kernel(q, k, v, SegmentIds(q_segments_L, k_segments_S))

    # The kernel has no scale of its own.
    q_BxHxLxK = (q_BxLxHxK.astype(jnp.float32) * scale).astype(q_BxLxHxK.dtype).swapaxes(1, 2)
    y_BxHxLxK = jax.vmap(attend_row)(
        _pad_end(q_BxHxLxK, 2, q_padding),
        _pad_end(kv.keys_BxGxSxK, 2, k_padding),
        _pad_end(kv.values_BxGxSxK, 2, k_padding),
        _pad_end(q_segments_BxL, 1, q_padding),
        _pad_end(k_segments_BxS, 1, k_padding),
        _pad_end(key_span.first_BxL, 1, q_padding, S),
        _pad_end(key_span.last_BxL, 1, q_padding, -1),
    )
    attends_BxL = key_span.first_BxL <= key_span.last_BxL
    return jnp.where(attends_BxL[:, :, None, None], y_BxHxLxK[:, :, :L].swapaxes(1, 2), 0)


def _row_kernel(
    first_L: jax.Array,
    last_L: jax.Array,
    sizes: BlockSizes,
    n_keys: int,
    *,
    softcap: float,
    windowed: bool,
    interpret: bool,
) -> Any:
    """The library's kernel, told which blocks of one row to visit and what each query attends to.

    The library expects masks that are known when the program is traced, and its types say so, but
    traced arrays work as well.
    """
    visited_NxM = _visited_blocks(first_L, last_L, sizes.block_q, sizes.block_kv, n_keys)
    # A query that attends to nothing gets an empty interval, from key 1 to key 0.
    interval_L = jnp.where(first_L <= last_L, first_L | last_L << 16, 1)
    bound_L: Any = interval_L if windowed else last_L
    visited: Any = visited_NxM[None].astype(jnp.int32)
    next_q: Any = _next_visited(visited_NxM, axis=0)[None]
    next_k: Any = _next_visited(visited_NxM, axis=1)[None]
    mask_by_queries = MaskInfo(next_k, None, visited, None, bound_L)
    mask_by_keys = MaskInfo(next_q, None, visited, None, bound_L)
    kernel: Any = library.SplashAttentionKernel
    return kernel(
        mask_by_queries,  # Forward.
        mask_by_queries,  # The gradient of queries.
        mask_by_keys,  # The gradient of keys and values.
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=library.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=softcap or None,
        residual_checkpoint_name=ATTENTION_OUTPUT,
        mask_function=_is_in_interval if windowed else _is_not_after,
        interpret=interpret,
    )


def _block_and_padding(length: int) -> tuple[int, int]:
    """The size of a block, and how much is added to `length` to make whole blocks."""
    padding = -length % (LANES if length < 2 * BLOCK else BLOCK)
    return math.gcd(length + padding, BLOCK), padding


def _pad_end(x: jax.Array, axis: int, padding: int, value: int = 0) -> jax.Array:
    widths = [(0, padding if a == axis else 0) for a in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value)


def _visited_blocks(
    first_L: jax.Array, last_L: jax.Array, block_q: int, block_k: int, n_keys: int
) -> jax.Array:
    """Which blocks of keys each block of queries visits: bool NxM."""
    start_M = jnp.arange(0, n_keys, block_k)
    first_Nx1 = first_L.reshape(-1, block_q).min(axis=1, keepdims=True)
    last_Nx1 = last_L.reshape(-1, block_q).max(axis=1, keepdims=True)
    visited_NxM = (first_Nx1 < start_M + block_k) & (last_Nx1 >= start_M)
    # A block of queries that attend to nothing still visits one block; otherwise it
    # would compute 0 / 0.
    return visited_NxM | ((start_M == 0) & ~visited_NxM.any(axis=1, keepdims=True))


def _next_visited(visited_NxM: jax.Array, axis: int) -> jax.Array:
    """For each block, the block to fetch: the next visited one along `axis`, or else the last.

    A visited block is its own next one.
    """
    n = visited_NxM.shape[axis]
    index = jax.lax.broadcasted_iota(jnp.int32, visited_NxM.shape, axis)
    ahead = jax.lax.cummin(jnp.where(visited_NxM, index, n), axis=axis, reverse=True)
    latest = jax.lax.cummax(jnp.where(visited_NxM, index, 0), axis=axis)
    return jnp.where(ahead < n, ahead, latest)


def _is_not_after(last: jax.Array, key: jax.Array) -> jax.Array:
    """The kernel's mask function without a window."""
    return key <= last


def _is_in_interval(interval: jax.Array, key: jax.Array) -> jax.Array:
    """The kernel's mask function with a window.

    An interval is the first key in its low 16 bits, and the last key in its high 16 bits: hence
    `implementations.MAX_SPLASH_WINDOWED_KEYS`.
    """
    first = interval & 0xFFFF
    last = jax.lax.shift_right_logical(interval, 16)
    return (key >= first) & (key <= last)
