"""Splash attention on TPU: JAX's own Pallas kernel, told at run time which blocks to visit.

What a query sees of the keys is, in a row of whole segments, an interval inside its segment. The
kernel masks by that interval and by segment ids, so packing, prefixes and windows (even one that
only the scan over layers knows) are all the same to it; and it skips a block of keys that no
query of a block sees, so packed examples do not pay for each other. Blocks are per row.

Shape suffixes as in `attention`; N blocks of queries, M blocks of keys.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, SegmentIds
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as library
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

from ift_jax.models.layers import ATTENTION

LANES, BLOCK = 128, 512
MAX_WINDOWED = 1 << 16  # Keys: an interval is handed over as two halves of 32 bits.


def _up_to(code: jax.Array, key: jax.Array) -> jax.Array:
    return key <= code


def _inside(code: jax.Array, key: jax.Array) -> jax.Array:
    return (key >= (code & 0xFFFF)) & (key <= jax.lax.shift_right_logical(code, 16))


def _block_and_padding(length: int) -> tuple[int, int]:
    """The block, and what a length lacks to a multiple of it."""
    padding = -length % (LANES if length < 2 * BLOCK else BLOCK)
    return math.gcd(length + padding, BLOCK), padding


def _following(runs_NxM: jax.Array, axis: int) -> jax.Array:
    """Along `axis`, the next block that runs (from itself on), else the last: what to fetch."""
    place, n = jax.lax.broadcasted_iota(jnp.int32, runs_NxM.shape, axis), runs_NxM.shape[axis]
    ahead = jax.lax.cummin(jnp.where(runs_NxM, place, n), axis=axis, reverse=True)
    return jnp.where(ahead < n, ahead, jax.lax.cummax(jnp.where(runs_NxM, place, 0), axis=axis))


def splash(
    q_BxLxHxK: jax.Array,
    keys_BxGxSxK: jax.Array,
    values_BxGxSxK: jax.Array,
    q_segments_BxL: jax.Array,
    k_segments_BxS: jax.Array,
    first_BxL: jax.Array,
    last_BxL: jax.Array,
    *,
    scale: float,
    softcap: float,
    windowed: bool,
    interpret: bool,
) -> jax.Array:
    """Softmax attention: BxLxHxK in q's dtype, differentiable in q, keys and values.

    A query sees the keys of its segment id from place `first_BxL` to `last_BxL` of the row, all
    int32; without `windowed`, `first_BxL` must be no bound but the segment's own. Where last <
    first it sees none, gets zero and has zero gradients. `interpret` runs the kernel outside a
    TPU, slowly.
    """
    L, S = q_BxLxHxK.shape[1], keys_BxGxSxK.shape[2]
    (bq, more_q), (bk, more_k) = _block_and_padding(L), _block_and_padding(S)
    sizes = BlockSizes(
        block_q=bq, block_kv=bk, block_q_dkv=bq, block_kv_dkv=bk, block_q_dq=bq, block_kv_dq=bk
    )

    def of_row(q: jax.Array, k: jax.Array, v: jax.Array, *ints: jax.Array) -> jax.Array:
        q_segments_L, k_segments_S, first_L, last_L = ints
        start_M = jnp.arange(0, S + more_k, bk)
        first_Nx1 = first_L.reshape(-1, bq).min(axis=1, keepdims=True)
        last_Nx1 = last_L.reshape(-1, bq).max(axis=1, keepdims=True)
        runs_NxM = (first_Nx1 < start_M + bk) & (last_Nx1 >= start_M)
        # A block of queries that see nothing visits one block all the same: 0 / 0 otherwise.
        runs_NxM |= (start_M == 0) & ~runs_NxM.any(axis=1, keepdims=True)
        both_L = jnp.where(first_L <= last_L, first_L | last_L << 16, 1)  # Key 1 up to key 0.
        code_L: Any = both_L if windowed else last_L
        blocks: Any = runs_NxM[None].astype(jnp.int32)
        nexts: list[Any] = [_following(runs_NxM, axis)[None] for axis in (0, 1)]
        of_keys, of_q = (MaskInfo(next_, None, blocks, None, code_L) for next_ in nexts)
        kernel: Any = library.SplashAttentionKernel(
            of_q,
            of_q,
            of_keys,
            block_sizes=sizes,
            is_mqa=False,
            save_residuals=False,
            mask_value=library.DEFAULT_MASK_VALUE,
            attn_logits_soft_cap=softcap or None,
            residual_checkpoint_name=ATTENTION,
            mask_function=_inside if windowed else _up_to,
            interpret=interpret,
        )
        return kernel(q, k, v, SegmentIds(q_segments_L, k_segments_S))

    def pad(x: jax.Array, axis: int, more: int, value: int = 0) -> jax.Array:
        widths = [(0, more if a == axis else 0) for a in range(x.ndim)]
        return jnp.pad(x, widths, constant_values=value)

    q_BxHxLxK = (q_BxLxHxK.astype(jnp.float32) * scale).astype(q_BxLxHxK.dtype).swapaxes(1, 2)
    y_BxHxLxK = jax.vmap(of_row)(
        pad(q_BxHxLxK, 2, more_q),
        pad(keys_BxGxSxK, 2, more_k),
        pad(values_BxGxSxK, 2, more_k),
        pad(q_segments_BxL, 1, more_q),
        pad(k_segments_BxS, 1, more_k),
        pad(first_BxL, 1, more_q, S),
        pad(last_BxL, 1, more_q, -1),
    )
    sees_any_BxL = first_BxL <= last_BxL
    return jnp.where(sees_any_BxL[:, :, None, None], y_BxHxLxK[:, :, :L].swapaxes(1, 2), 0)
