"""The Triton kernels of attention: forward, the gradient of queries, and that of keys and values.

`triton` says what each grid and block is, and calls them. Each kernel gets one head of one row at a
time: the axes of rows and heads (except the query heads of a key-value head in `dkv_kernel`)
are dropped from its arguments.

Shape suffixes: n queries and m keys of a block (both `KernelOptions.block`), K width of a head.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import dot

LOG2E = math.log2(math.e)
# The highest score before any is seen. It is finite, because inf - inf is NaN.
LOWEST_SCORE = -1e30


class KernelOptions(NamedTuple):
    """What is known when the kernels are compiled."""

    block: int  # Queries and keys of a block.
    warps: int
    scale: float
    softcap: float
    interpret: bool


class _Queries(NamedTuple):
    """The rows of `queries_Bx3xL`: what the mask needs to know about queries, int32 each."""

    segments_n: Any
    first_n: Any  # The first key that each attends to.
    last_n: Any


def _read_queries(queries_ref: Any, at: Any) -> _Queries:
    return _Queries(*[queries_ref[row, at] for row in range(3)])


def _scores(q_nxK: Any, k_mxK: Any, options: KernelOptions) -> tuple[Any, Any]:
    """The scores in base-2 log units, and d(score) / d(q k^T) of the natural ones: nxm.

    Without a soft cap the derivative is a scalar.
    """
    scores = dot(q_nxK, k_mxK.T) * options.scale
    softcap = options.softcap
    if not softcap:
        return scores * LOG2E, options.scale
    tanh = jnp.tanh(scores / softcap)
    return tanh * (softcap * LOG2E), (1 - tanh * tanh) * options.scale


def _mask(queries: _Queries, k_segments_m: Any, start: Any) -> Any:
    """Which of the keys from index `start` on each query attends to: bool nxm."""
    index_m = start + jnp.arange(len(k_segments_m), dtype=jnp.int32)
    in_span = (index_m[None] >= queries.first_n[:, None]) & (
        index_m[None] <= queries.last_n[:, None]
    )
    return in_span & (queries.segments_n[:, None] == k_segments_m[None])


def _fold_over_keys(
    k_ref: Any,
    v_ref: Any,
    queries_ref: Any,
    k_segments_ref: Any,
    visit: Callable[..., Any],
    start: Any,
    block: int,
) -> Any:
    """Fold `visit(k, v, mask, carry)` over the blocks of keys that any query attends to."""
    queries = _read_queries(queries_ref, slice(None))

    def visit_block(j: Any, carry: Any) -> Any:
        at = pl.ds(j * block, block)
        mask = _mask(queries, k_segments_ref[at], j * block)
        return visit(k_ref[at, :], v_ref[at, :], mask, carry)

    begin = queries.first_n.min() // block
    end = (queries.last_n.max() + block) // block
    return jax.lax.fori_loop(begin, end, visit_block, start)


# --- Forward ---


class _Softmax(NamedTuple):
    """A softmax over the keys visited so far."""

    y_nxK: Any  # The weighted sum of the values, not yet divided by `sum_n`.
    highest_n: Any  # The highest score, in units of log 2.
    sum_n: Any  # The sum of the weights relative to it.


def forward_kernel(
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    queries_ref: Any,
    k_segments_ref: Any,
    y_ref: Any,
    lse_ref: Any,
    *,
    options: KernelOptions,
) -> None:
    """Write the output of a block of queries, and the log (base 2) of its sum of exponentials."""
    q = q_ref[...]

    def visit(k: Any, v: Any, mask: Any, carry: _Softmax) -> _Softmax:
        scores, _ = _scores(q, k, options)
        highest_n = jnp.maximum(carry.highest_n, jnp.where(mask, scores, LOWEST_SCORE).max(axis=1))
        weights = jnp.where(mask, jnp.exp2(scores - highest_n[:, None]), 0.0)
        rescale_n = jnp.exp2(carry.highest_n - highest_n)
        y_nxK = carry.y_nxK * rescale_n[:, None] + dot(weights.astype(v.dtype), v)
        return _Softmax(y_nxK, highest_n, carry.sum_n * rescale_n + weights.sum(axis=1))

    zero_n = jnp.zeros(options.block, jnp.float32)
    start = _Softmax(jnp.zeros(q.shape, jnp.float32), zero_n + LOWEST_SCORE, zero_n)
    y_nxK, highest_n, sum_n = _fold_over_keys(
        k_ref, v_ref, queries_ref, k_segments_ref, visit, start, options.block
    )
    # A query that attends to nothing has y = 0, which must not be divided by 0.
    sum_n = jnp.where(sum_n > 0, sum_n, 1.0)
    y_ref[...] = (y_nxK / sum_n[:, None]).astype(y_ref.dtype)
    lse_ref[...] = highest_n + jnp.log2(sum_n)


# --- Backward ---


class _QueryGradient(NamedTuple):
    """What the backward pass knows about a block of queries."""

    dy_nxK: Any  # The gradient of the output.
    lse_n: Any  # As the forward kernel wrote it.
    delta_n: Any  # The sum of output times its gradient.


def _weights_and_gradient(
    q: Any, k: Any, v: Any, known: _QueryGradient, mask: Any, options: KernelOptions
) -> tuple[Any, Any]:
    """The attention weights, computed again, and the gradient of q k^T: nxm each, in q's dtype."""
    scores, slope = _scores(q, k, options)
    weights = jnp.where(mask, jnp.exp2(scores - known.lse_n[:, None]), 0.0)
    gradient = weights * (dot(known.dy_nxK, v.T) - known.delta_n[:, None]) * slope
    return weights.astype(q.dtype), gradient.astype(q.dtype)


def dq_kernel(
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    queries_ref: Any,
    k_segments_ref: Any,
    dy_ref: Any,
    lse_ref: Any,
    delta_ref: Any,
    dq_ref: Any,
    *,
    options: KernelOptions,
) -> None:
    """Write the gradient of a block of queries."""
    q = q_ref[...]
    known = _QueryGradient(dy_ref[...], lse_ref[...], delta_ref[...])

    def visit(k: Any, v: Any, mask: Any, dq: Any) -> Any:
        _, gradient = _weights_and_gradient(q, k, v, known, mask, options)
        return dq + dot(gradient, k)

    start = jnp.zeros(q.shape, jnp.float32)
    dq = _fold_over_keys(k_ref, v_ref, queries_ref, k_segments_ref, visit, start, options.block)
    dq_ref[...] = dq.astype(dq_ref.dtype)


def dkv_kernel(
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    queries_ref: Any,
    k_segments_ref: Any,
    dy_ref: Any,
    lse_ref: Any,
    delta_ref: Any,
    visits_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
    *,
    options: KernelOptions,
) -> None:
    """Write the gradients of a block of keys and values, summed over the heads that share them."""
    k = k_ref[...]
    v = v_ref[...]
    k_segments_m = k_segments_ref[...]
    first_key = pl.program_id(0) * options.block

    def visit_head(h: Any, sums: Any) -> Any:
        def visit_queries(i: Any, sums: Any) -> Any:
            dk, dv = sums
            at = pl.ds(i * options.block, options.block)
            q = q_ref[at, h, :]
            dy = dy_ref[at, h, :]
            mask = _mask(_read_queries(queries_ref, at), k_segments_m, first_key)
            known = _QueryGradient(dy, lse_ref[h, at], delta_ref[h, at])
            weights, gradient = _weights_and_gradient(q, k, v, known, mask, options)
            return dk + dot(gradient.T, q), dv + dot(weights.T, dy)

        return jax.lax.fori_loop(visits_ref[0], visits_ref[1], visit_queries, sums)

    zero = jnp.zeros(k.shape, jnp.float32)
    n_heads = q_ref.shape[1]
    dk, dv = jax.lax.fori_loop(0, n_heads, visit_head, (zero, zero))
    dk_ref[...] = dk.astype(dk_ref.dtype)
    dv_ref[...] = dv.astype(dv_ref.dtype)
