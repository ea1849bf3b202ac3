"""Attention for NVIDIA GPUs: flash kernels of our own, in Pallas, lowered to Triton.

Causal, prefix and window masks are one comparison with an interval of keys, as in `splash`, and a
block of queries visits the keys from the first to the last that any of them sees. The method is
FlashAttention-2's (Dao 2023, arXiv:2307.08691): the backward pass computes the scores again.
docs/attention.md says why no library's kernel is used.

Shape suffixes as in `attention`; N blocks of n queries, M blocks of m keys. In the kernels K is
padded to a power of two and the lengths to whole blocks.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import CompilerParams, dot

from ift_jax.models.layers import ATTENTION

BLOCK_BYTES = 1 << 14  # Of a block's queries: the kernels fit into 99 KiB of shared memory.
LOG2E = math.log2(math.e)
NONE_YET = -1e30  # The highest score before any: finite, as infinity less infinity is no number.


class Options(NamedTuple):
    """What is known when the kernels are compiled."""

    block: int  # Queries and keys of a block.
    warps: int
    scale: float
    softcap: float
    interpret: bool


def runs_here() -> bool:
    """Whether the GPUs of this machine, if it has any, are NVIDIA's from Ampere (8.0) on."""
    major = getattr(jax.local_devices()[0], "compute_capability", "8.0").split(".")[0]
    return major.isdigit() and int(major) >= 8


def _scores(q_nxK: Any, k_mxK: Any, options: Options) -> tuple[Any, Any]:
    """Scores in units of log 2, float32 nxm, and their derivative by the products (times log 2)."""
    scores, softcap = dot(q_nxK, k_mxK.T) * options.scale, options.softcap
    if not softcap:
        return scores * LOG2E, options.scale
    tanh = jnp.tanh(scores / softcap)
    return tanh * (softcap * LOG2E), (1 - tanh * tanh) * options.scale


def _sees(queries: Any, k_ids_m: Any, start: Any) -> Any:
    """The one mask, nxm, of `queries` (ids, first and last key) and the keys from `start` on."""
    q_ids_n, first_n, last_n = queries
    place_m = start + jnp.arange(len(k_ids_m), dtype=jnp.int32)
    inside = (place_m[None] >= first_n[:, None]) & (place_m[None] <= last_n[:, None])
    return inside & (q_ids_n[:, None] == k_ids_m[None])


def _over_keys(refs: Any, visit: Callable[..., Any], start: Any, block: int) -> Any:
    """Folds the blocks of keys that any of the queries may see: `visit(k, v, sees, so far)`."""
    _, k_ref, v_ref, queries_ref, ids_ref = refs[:5]
    queries = [queries_ref[row, :] for row in range(3)]

    def visit_block(j: Any, so_far: Any) -> Any:
        keys = pl.ds(j * block, block)
        sees = _sees(queries, ids_ref[keys], j * block)
        return visit(k_ref[keys, :], v_ref[keys, :], sees, so_far)

    begin, end = queries[1].min() // block, (queries[2].max() + block) // block
    return jax.lax.fori_loop(begin, end, visit_block, start)


def _forward_kernel(*refs: Any, options: Options) -> None:
    q, y_ref, lse_ref = refs[0][...], *refs[5:]

    def visit(k: Any, v: Any, sees: Any, so_far: Any) -> Any:
        (y, top_n, sum_n), (scores, _) = so_far, _scores(q, k, options)
        new_top_n = jnp.maximum(top_n, jnp.where(sees, scores, NONE_YET).max(axis=1))
        weights = jnp.where(sees, jnp.exp2(scores - new_top_n[:, None]), 0.0)
        less_n = jnp.exp2(top_n - new_top_n)
        y = y * less_n[:, None] + dot(weights.astype(v.dtype), v)
        return y, new_top_n, sum_n * less_n + weights.sum(axis=1)

    none_n = jnp.zeros(options.block, jnp.float32)
    start = jnp.zeros(q.shape, jnp.float32), none_n + NONE_YET, none_n
    y, top_n, sum_n = _over_keys(refs, visit, start, options.block)
    sum_n = jnp.where(sum_n > 0, sum_n, 1.0)  # Of a query that sees nothing: y is 0.
    y_ref[...] = (y / sum_n[:, None]).astype(y_ref.dtype)
    lse_ref[...] = top_n + jnp.log2(sum_n)


def _weights(q: Any, k: Any, v: Any, known: Any, sees: Any, options: Options) -> tuple[Any, Any]:
    """The weights and the gradient of q k^T, nxm; `known`: the output's gradient, and two sums."""
    (scores, slope), (dy, lse_n, delta_n) = _scores(q, k, options), known
    weights = jnp.where(sees, jnp.exp2(scores - lse_n[:, None]), 0.0)
    gradient = weights * (dot(dy, v.T) - delta_n[:, None]) * slope
    return weights.astype(q.dtype), gradient.astype(q.dtype)


def _dq_kernel(*refs: Any, options: Options) -> None:
    q, *known, dq_ref = refs[0][...], *(ref[...] for ref in refs[5:8]), refs[8]
    visit = lambda k, v, sees, dq: dq + dot(_weights(q, k, v, known, sees, options)[1], k)  # noqa: E731
    dq = _over_keys(refs, visit, jnp.zeros(q.shape, jnp.float32), options.block)
    dq_ref[...] = dq.astype(dq_ref.dtype)


def _dkv_kernel(*refs: Any, options: Options) -> None:
    q_ref, k_ref, v_ref, queries_ref, ids_ref, dy_ref, lse_ref, delta_ref, *others = refs
    visits_ref, dk_ref, dv_ref = others
    k, v, ids_m, start = k_ref[...], v_ref[...], ids_ref[...], pl.program_id(0) * options.block

    def of_head(h: Any, sums: Any) -> Any:
        def visit(i: Any, sums: Any) -> Any:
            at = pl.ds(i * options.block, options.block)
            q, dy = q_ref[at, h, :], dy_ref[at, h, :]
            sees = _sees([queries_ref[row, at] for row in range(3)], ids_m, start)
            known = dy, lse_ref[h, at], delta_ref[h, at]
            weights, gradient = _weights(q, k, v, known, sees, options)
            return sums[0] + dot(gradient.T, q), sums[1] + dot(weights.T, dy)

        return jax.lax.fori_loop(visits_ref[0], visits_ref[1], visit, sums)

    zero = jnp.zeros(k.shape, jnp.float32)
    dk, dv = jax.lax.fori_loop(0, q_ref.shape[1], of_head, (zero, zero))
    dk_ref[...], dv_ref[...] = dk.astype(dk_ref.dtype), dv.astype(dv_ref.dtype)


def _call(kernel: Any, kinds: str, arrays: Any, results: Any, options: Options) -> list[jax.Array]:
    """A kernel of blocks of keys where it is given which they visit, else of blocks of queries.

    `kinds` are of `arrays`, then of the results, which are as `results`; None in a block is an
    axis that the kernel does not have.
    """
    (B, L, H, K), (G, S), n = arrays[0].shape, arrays[1].shape[1:3], options.block
    of: dict[str, Any]
    if "visits" in kinds:
        grid = S // n, G, B
        of = dict(
            q=((None, L, H // G, K), lambda j, g, b: (b, 0, g, 0)),
            k=((None, None, n, K), lambda j, g, b: (b, g, j, 0)),
            queries=((None, 3, L), lambda j, g, b: (b, 0, 0)),
            ids=((None, n), lambda j, g, b: (b, j)),
            sums=((None, H // G, L), lambda j, g, b: (b, g, 0)),
            visits=((None, None, 2), lambda j, g, b: (b, j, 0)),
        )
    else:
        grid = L // n, H, B
        of = dict(
            q=((None, n, None, K), lambda i, h, b: (b, i, h, 0)),
            k=((None, None, S, K), lambda i, h, b: (b, h // (H // G), 0, 0)),
            queries=((None, 3, n), lambda i, h, b: (b, 0, i)),
            ids=((None, S), lambda i, h, b: (b, 0)),
            sums=((None, None, n), lambda i, h, b: (b, h, i)),
        )
    specs = [pl.BlockSpec(*of[kind]) for kind in kinds.split()]
    return pl.pallas_call(
        functools.partial(kernel, options=options),
        grid=grid,
        interpret=options.interpret,
        in_specs=specs[: len(arrays)],
        out_specs=specs[len(arrays) :],
        out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in results],
        compiler_params=CompilerParams(num_warps=options.warps, num_stages=2),
        name=f"attention{kernel.__name__}",
    )(*arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(q: Any, k: Any, v: Any, queries: Any, ids: Any, options: Options) -> jax.Array:
    """The output BxLxHxK for whole blocks; `queries` are Bx3xL, `ids` of the keys BxS."""
    return _forward(q, k, v, queries, ids, options)[0]


def _forward(*args: Any) -> tuple[jax.Array, Any]:
    *arrays, options = args
    B, L, H, _ = arrays[0].shape
    like = arrays[0], jax.ShapeDtypeStruct((B, H, L), jnp.float32)
    results = _call(_forward_kernel, "q k k queries ids q sums", arrays, like, options)
    y, lse_BxHxL = (checkpoint_name(a, ATTENTION) for a in results)
    return y, (arrays, y, lse_BxHxL)


def _backward(options: Options, kept: Any, dy: jax.Array) -> Any:
    arrays, y, lse_BxHxL = kept
    q, k, v, queries, _ = arrays
    products = y.astype(jnp.float32) * dy.astype(jnp.float32)
    arrays = *arrays, dy, lse_BxHxL, products.sum(axis=-1).swapaxes(1, 2)
    kinds = "q k k queries ids q sums sums "
    [dq] = _call(_dq_kernel, kinds + "q", arrays, [q], options)

    # A block of keys visits the queries from the first block to the last that may see it.
    (B, L), block = q.shape[:2], options.block
    start_M = jnp.arange(0, k.shape[2], block)
    first_BxNx1 = queries[:, 1].reshape(B, -1, block).min(axis=-1, keepdims=True)
    last_BxNx1 = queries[:, 2].reshape(B, -1, block).max(axis=-1, keepdims=True)
    seen_BxNxM = (first_BxNx1 < start_M + block) & (last_BxNx1 >= start_M)
    place_Nx1 = jnp.arange(L // block, dtype=jnp.int32)[:, None]
    begin_BxM = jnp.where(seen_BxNxM, place_Nx1, L).min(axis=1)
    visits_BxMx2 = jnp.stack([begin_BxM, jnp.where(seen_BxNxM, place_Nx1 + 1, 0).max(axis=1)], -1)
    dk, dv = _call(_dkv_kernel, kinds + "visits k k", (*arrays, visits_BxMx2), [k, v], options)
    return dq, dk, dv, None, None


_attend.defvjp(_forward, _backward)


def triton(
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
    interpret: bool,
) -> jax.Array:
    """As `splash.splash`, with windows or without; `interpret` runs it outside a GPU, slowly."""
    (_, L, _, K), S = q_BxLxHxK.shape, keys_BxGxSxK.shape[2]
    width = max(16, pl.next_power_of_2(K))  # Products of less than 16 are none of the hardware's.
    n_bytes = width * q_BxLxHxK.dtype.itemsize
    block, warps = min(64, max(16, BLOCK_BYTES // n_bytes)), 4 if n_bytes <= 128 else 8

    def pad(x: jax.Array, axis: int, value: int = 0) -> jax.Array:
        more = [(0, -size % block if a == axis else 0) for a, size in enumerate(x.shape)]
        if x.ndim == 4:
            more[3] = (0, width - K)
        return jnp.pad(x, more, constant_values=value)

    q, k, v = pad(q_BxLxHxK, 1), pad(keys_BxGxSxK, 2), pad(values_BxGxSxK, 2)
    queries = pad(q_segments_BxL, 1), pad(first_BxL, 1, S), pad(last_BxL, 1, -1)
    ints, options = (jnp.stack(queries, 1), pad(k_segments_BxS, 1)), (scale, softcap, interpret)
    return _attend(q, k, v, *ints, Options(block, warps, *options))[:, :L, :, :K]
