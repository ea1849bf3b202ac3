"""Attention for NVIDIA GPUs: our own flash kernels, in Pallas, lowered to Triton.

Causal, prefix and window masks are one comparison with an interval of keys, as in `splash`, and a
block of queries visits the keys from the first to the last that any of them attends to. The method
is FlashAttention-2's (Dao 2023, arXiv:2307.08691): the backward pass computes the scores again.
`triton_kernels` holds the three kernels: those of the forward pass and of the gradient of queries
run once for each block of queries and loop over keys, that of the gradient of keys and values runs
once for each block of keys and loops over queries. docs/attention.md says why no library's kernel
is used.

Shape suffixes as in `attention`; N blocks of queries, M blocks of keys. Before the kernels are
called, K is padded to a power of two and the lengths to whole blocks.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import CompilerParams

from ift_jax.models.attention import triton_kernels as kernels
from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import KeySpan
from ift_jax.models.attention.triton_kernels import KernelOptions
from ift_jax.models.remat import ATTENTION_OUTPUT

BLOCK_BYTES = 1 << 14  # Bytes of a block's queries, so that kernels fit into 99 KiB shared memory.
MIN_WIDTH = 16  # The hardware has no matrix products of less than 16.


def triton_attention(
    q_BxLxHxK: jax.Array,
    kv: KVPair,
    q_segments_BxL: jax.Array,
    k_segments_BxS: jax.Array,
    key_span: KeySpan,
    *,
    scale: float,
    softcap: float,
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
        interpret: Whether to run the kernels outside a GPU, which is slow.
    """
    _, L, _, K = q_BxLxHxK.shape
    S = kv.keys_BxGxSxK.shape[2]
    width = max(MIN_WIDTH, pl.next_power_of_2(K))
    bytes_per_query = width * q_BxLxHxK.dtype.itemsize
    options = KernelOptions(
        block=min(64, max(16, BLOCK_BYTES // bytes_per_query)),
        warps=4 if bytes_per_query <= 128 else 8,
        scale=scale,
        softcap=softcap,
        interpret=interpret,
    )

    def pad(x: jax.Array, length_axis: int, value: int = 0) -> jax.Array:
        widths = [(0, 0)] * x.ndim
        widths[length_axis] = (0, -x.shape[length_axis] % options.block)
        if x.ndim == 4:
            widths[3] = (0, width - K)
        return jnp.pad(x, widths, constant_values=value)

    q = pad(q_BxLxHxK, 1)
    k = pad(kv.keys_BxGxSxK, 2)
    v = pad(kv.values_BxGxSxK, 2)
    queries_Bx3xL = jnp.stack(
        [pad(q_segments_BxL, 1), pad(key_span.first_BxL, 1, S), pad(key_span.last_BxL, 1, -1)], 1
    )
    y = _attend(q, k, v, queries_Bx3xL, pad(k_segments_BxS, 1), options)
    return y[:, :L, :, :K]


class _Layout(NamedTuple):
    """The grid that a kernel runs over, and the block of each kind of array that it is given.

    An axis that is None in a block is dropped from the kernel's arguments. The kinds are "q" (also
    the output and its gradient), "k" (also values and their gradients), "queries" (`_Queries`),
    "k_segments", "sums" (float32, one per query and head) and "visits".
    """

    grid: tuple[int, int, int]
    blocks: Mapping[str, pl.BlockSpec]


def _layout_by_queries(q: jax.Array, k: jax.Array, n: int) -> _Layout:
    """A program for each block of queries, query head and row; it has all keys."""
    B, L, H, K = q.shape
    G, S = k.shape[1:3]
    blocks = {
        "q": pl.BlockSpec((None, n, None, K), lambda i, h, b: (b, i, h, 0)),
        "k": pl.BlockSpec((None, None, S, K), lambda i, h, b: (b, h // (H // G), 0, 0)),
        "queries": pl.BlockSpec((None, 3, n), lambda i, h, b: (b, 0, i)),
        "k_segments": pl.BlockSpec((None, S), lambda i, h, b: (b, 0)),
        "sums": pl.BlockSpec((None, None, n), lambda i, h, b: (b, h, i)),
    }
    return _Layout((L // n, H, B), blocks)


def _layout_by_keys(q: jax.Array, k: jax.Array, n: int) -> _Layout:
    """A program for each block of keys, key-value head and row; it has all queries of its heads."""
    B, L, H, K = q.shape
    G, S = k.shape[1:3]
    blocks = {
        "q": pl.BlockSpec((None, L, H // G, K), lambda j, g, b: (b, 0, g, 0)),
        "k": pl.BlockSpec((None, None, n, K), lambda j, g, b: (b, g, j, 0)),
        "queries": pl.BlockSpec((None, 3, L), lambda j, g, b: (b, 0, 0)),
        "k_segments": pl.BlockSpec((None, n), lambda j, g, b: (b, j)),
        "sums": pl.BlockSpec((None, H // G, L), lambda j, g, b: (b, g, 0)),
        "visits": pl.BlockSpec((None, None, 2), lambda j, g, b: (b, j, 0)),
    }
    return _Layout((S // n, G, B), blocks)


class _Typed(NamedTuple):
    """An array (or the shape of a result) and its kind in a layout."""

    kind: str
    array: Any


def _call(
    kernel: Callable[..., None],
    name: str,
    layout: _Layout,
    arguments: Sequence[_Typed],
    results: Sequence[_Typed],
    options: KernelOptions,
) -> list[jax.Array]:
    """Run a kernel; the results have the shapes and dtypes of the arrays given for them."""
    call = pl.pallas_call(
        functools.partial(kernel, options=options),
        grid=layout.grid,
        interpret=options.interpret,
        in_specs=[layout.blocks[argument.kind] for argument in arguments],
        out_specs=[layout.blocks[result.kind] for result in results],
        out_shape=[jax.ShapeDtypeStruct(r.array.shape, r.array.dtype) for r in results],
        compiler_params=CompilerParams(num_warps=options.warps, num_stages=2),
        name=name,
    )
    return call(*(argument.array for argument in arguments))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries_Bx3xL: jax.Array,
    k_segments_BxS: jax.Array,
    options: KernelOptions,
) -> jax.Array:
    """The output BxLxHxK, where L and S are whole blocks."""
    return _forward(q, k, v, queries_Bx3xL, k_segments_BxS, options)[0]


class _Residuals(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    arguments: list[Any]
    y: jax.Array
    lse_BxHxL: jax.Array


def _typed_arguments(
    q: Any, k: Any, v: Any, queries_Bx3xL: Any, k_segments_BxS: Any
) -> list[_Typed]:
    return [
        _Typed("q", q),
        _Typed("k", k),
        _Typed("k", v),
        _Typed("queries", queries_Bx3xL),
        _Typed("k_segments", k_segments_BxS),
    ]


def _forward(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries_Bx3xL: jax.Array,
    k_segments_BxS: jax.Array,
    options: KernelOptions,
) -> tuple[jax.Array, _Residuals]:
    B, L, H, _ = q.shape
    arguments = [q, k, v, queries_Bx3xL, k_segments_BxS]
    y, lse_BxHxL = _call(
        kernels.forward_kernel,
        "attention_forward_kernel",
        _layout_by_queries(q, k, options.block),
        _typed_arguments(*arguments),
        [_Typed("q", q), _Typed("sums", jax.ShapeDtypeStruct((B, H, L), jnp.float32))],
        options,
    )
    # Named, so that a remat policy can keep the output and the sums, and run no kernel again.
    y = checkpoint_name(y, ATTENTION_OUTPUT)
    lse_BxHxL = checkpoint_name(lse_BxHxL, ATTENTION_OUTPUT)
    return y, _Residuals(arguments, y, lse_BxHxL)


def _backward(options: KernelOptions, residuals: _Residuals, dy: jax.Array) -> tuple[Any, ...]:
    q, k, v, queries_Bx3xL, _ = residuals.arguments
    products = residuals.y.astype(jnp.float32) * dy.astype(jnp.float32)
    arguments = [
        *_typed_arguments(*residuals.arguments),
        _Typed("q", dy),
        _Typed("sums", residuals.lse_BxHxL),
        _Typed("sums", products.sum(axis=-1).swapaxes(1, 2)),
    ]
    (dq,) = _call(
        kernels.dq_kernel,
        "attention_dq_kernel",
        _layout_by_queries(q, k, options.block),
        arguments,
        [_Typed("q", q)],
        options,
    )
    visits = _Typed("visits", _query_blocks_of_keys(queries_Bx3xL, k.shape[2], options.block))
    dk, dv = _call(
        kernels.dkv_kernel,
        "attention_dkv_kernel",
        _layout_by_keys(q, k, options.block),
        [*arguments, visits],
        [_Typed("k", k), _Typed("k", v)],
        options,
    )
    return dq, dk, dv, None, None


def _query_blocks_of_keys(queries_Bx3xL: jax.Array, n_keys: int, block: int) -> jax.Array:
    """For each of M blocks of keys, the range of the N query blocks that may attend to it: BxMx2.

    The range is half-open; it is empty if there is no such block.
    """
    B, _, L = queries_Bx3xL.shape
    start_M = jnp.arange(0, n_keys, block)
    first_BxNx1 = queries_Bx3xL[:, 1].reshape(B, -1, block).min(axis=-1, keepdims=True)
    last_BxNx1 = queries_Bx3xL[:, 2].reshape(B, -1, block).max(axis=-1, keepdims=True)
    attends_BxNxM = (first_BxNx1 < start_M + block) & (last_BxNx1 >= start_M)
    index_Nx1 = jnp.arange(L // block, dtype=jnp.int32)[:, None]
    begin_BxM = jnp.where(attends_BxNxM, index_Nx1, L).min(axis=1)
    end_BxM = jnp.where(attends_BxNxM, index_Nx1 + 1, 0).max(axis=1)
    return jnp.stack([begin_BxM, end_BxM], -1)


_attend.defvjp(_forward, _backward)
