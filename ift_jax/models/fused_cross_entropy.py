"""Fused linear cross-entropy: the output head and the loss in one pass over chunks of positions.

The logits of a batch (positions x vocabulary, float32) are mostly the largest array of a step, so
they never exist as a whole. The forward pass goes over the positions in chunks: it computes a
chunk's logits, its loss, and, if a gradient is wanted, at once its part of the gradients of the
hidden states and of the head. The backward pass only scales these by the incoming gradient.

Positions that carry no loss weight are not computed: on each device the trained positions are
moved to the front, and the loop ends after the last chunk that holds one.

On a CPU the head is taken as VxD, as a tied embedding lies in memory, and the logits are VxN. As
DxV and NxV, the product of 640 positions with SmolLM2-135M's head takes 1.4 times as long, and a
tied head is copied transposed. For a TPU, VxD makes XLA copy an untied head.

Shape suffixes: B rows, L positions, D model width, V vocabulary; G groups of rows (one for each
device that shares the batch), T positions of a group, C positions of a chunk, N those of all
groups' chunks.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.sharding import fsdp, rules

# The most logits of a chunk: 64 MiB in float32 on CPU. Elsewhere 256 MiB: each chunk reads the
# whole head and adds to its whole gradient, so that small chunks would wait for memory.
MAX_CHUNK_LOGITS_ON_CPU = 2**24
MAX_CHUNK_LOGITS = 2**26
# On a CPU alone: the fewest logits of a chunk for which there are wide chunks too (a small head is
# not worth the time to compile it twice), the most logits of a wide one, and its most chunks.
MIN_CHUNK_LOGITS = 2**20
MAX_WIDE_CHUNK_LOGITS = 2**25
MAX_WIDE_CHUNK = 4


class CrossEntropyOptions(NamedTuple):
    """The loss at one position.

    Label smoothing spreads its mass evenly over the other tokens. The entropy of the smoothed
    target is subtracted, so that the lowest loss stays 0, as in T5X.
    """

    softcap: float = 0.0  # If positive, logits become softcap * tanh(logits / softcap) (Gemma 2).
    z_loss: float = 0.0  # Adds z_loss * logsumexp(logits) ** 2 (T5X, PaLM).
    label_smoothing: float = 0.0
    chunk: int = 0  # Positions of a chunk; 0: by the size of the vocabulary.


class TokenLoss(NamedTuple):
    """The parts of the loss at each position, float32; zero where nothing is trained."""

    nll: jax.Array  # Plain negative log-likelihood.
    z: jax.Array  # The z-loss term.
    correct: jax.Array  # 1 where the likeliest token is the target, else 0.


def fused_linear_cross_entropy(
    x_BxLxD: jax.Array,
    w_DxV: jax.Array,
    targets_BxL: jax.Array,
    weights_BxL: jax.Array,
    options: CrossEntropyOptions,
) -> tuple[jax.Array, TokenLoss]:
    """Compute the sum over all positions of weight times loss, and the loss's parts.

    Only the sum is differentiable, in `x` and `w`.

    Args:
        x_BxLxD: Final hidden states, float32 or bfloat16. Products are in this dtype, but sums
            over a chunk and the softmax are in float32.
        w_DxV: The head, float32.
        targets_BxL: int32.
        weights_BxL: Loss weights. Positions of weight 0 cost nothing.
        options: The loss at one position.

    Returns:
        The sum (float32, not normalized), and the parts, BxL each.
    """
    batch, length, d_model = x_BxLxD.shape
    groups, positions = grouped_shape(batch, length)
    total, parts = _grouped_loss(
        x_BxLxD.reshape(groups, positions, d_model),
        w_DxV,
        targets_BxL.reshape(groups, positions),
        weights_BxL.astype(jnp.float32).reshape(groups, positions),
        options,
    )
    return total, TokenLoss(*(part.reshape(batch, length) for part in parts))


def grouped_shape(batch: int, length: int) -> tuple[int, int]:
    """How many groups of how many positions a batch is made into, by the mesh that is set: G, T.

    With one group for each device, its trained positions are gathered without communication.
    """
    groups = rules.batch_shards(batch) or batch
    return groups, batch * length // groups


def chunk_length(length: int, vocab: int, requested: int = 0) -> int:
    """How many of a group's `length` positions make a chunk; 0 requested: by the sizes."""
    if requested:
        return min(requested, length)
    on_cpu = rules.platform() == "cpu"
    budget = (MAX_CHUNK_LOGITS_ON_CPU if on_cpu else MAX_CHUNK_LOGITS) // vocab
    eighth = -(-length // 8)
    return min(max(64, min(1024, budget, eighth)), length)


def wide_chunk_length(chunk: int, length: int, vocab: int, requested: int = 0) -> int:
    """How many positions make a wide chunk: a whole number of chunks, one where there is no other.

    On a CPU every chunk costs as much as some 40 positions, because the products prepare the whole
    head for it and its gradient is added to. With SmolLM2-135M's shape and 614 trained positions,
    a chunk of 640 instead of five of 128 shortens a step from 6.81 to 6.65 s. So most positions go
    through wide chunks, and the rest through narrow ones, so that few are computed for nothing.
    """
    if requested or rules.platform() != "cpu" or chunk * vocab < MIN_CHUNK_LOGITS:
        return chunk
    n_chunks = min(MAX_WIDE_CHUNK, MAX_WIDE_CHUNK_LOGITS // (chunk * vocab), length // chunk)
    return chunk * max(1, n_chunks)


class ChunkCounts(NamedTuple):
    """How many chunks of each length run: first the wide ones."""

    wide: jax.Array  # int32 scalar.
    narrow: jax.Array


def chunk_counts(n_trained: jax.Array, chunk: int, wide: int) -> ChunkCounts:
    """The chunks that hold the first `n_trained` positions."""
    n_chunks = -(-n_trained // chunk)
    per_wide = wide // chunk
    if per_wide == 1:
        return ChunkCounts(jnp.zeros_like(n_chunks), n_chunks)
    # A wide chunk of which one part is computed for nothing costs less than two or three narrow
    # ones.
    n_wide = (n_chunks + (1 if per_wide > 2 else 0)) // per_wide
    return ChunkCounts(n_wide, jnp.maximum(n_chunks - n_wide * per_wide, 0))


class _Layout(NamedTuple):
    """In which order the axes lie, in letters of einsum."""

    head: str  # "vd" or "dv".
    logits: str  # "vn" or "nv".


def _layout() -> _Layout:
    return _Layout("vd", "vn") if rules.platform() == "cpu" else _Layout("dv", "nv")


# --- Forward and backward ---


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _grouped_loss(
    x_GxTxD: jax.Array,
    w_DxV: jax.Array,
    targets_GxT: jax.Array,
    weights_GxT: jax.Array,
    options: CrossEntropyOptions,
) -> tuple[jax.Array, TokenLoss]:
    result = _compute(x_GxTxD, w_DxV, targets_GxT, weights_GxT, options, wanted=())
    return result.total, result.parts


def _forward(
    x: Any, w: Any, targets: Any, weights: Any, options: CrossEntropyOptions
) -> tuple[tuple[jax.Array, TokenLoss], tuple[jax.Array, jax.Array | None]]:
    wanted = ("x", "w") if w.perturbed else ("x",)  # A frozen head needs no gradient.
    result = _compute(x.value, w.value, targets.value, weights.value, options, wanted=wanted)
    assert result.dx is not None
    return (result.total, result.parts), (result.dx, result.dw)


def _backward(
    options: CrossEntropyOptions, residuals: tuple[jax.Array, jax.Array | None], cotangents: Any
) -> tuple[Any, ...]:
    dx, dw = residuals
    scale = cotangents[0]  # The parts are only reported: no gradient flows through them.
    return (dx * scale).astype(dx.dtype), None if dw is None else dw * scale, None, None


_grouped_loss.defvjp(_forward, _backward, symbolic_zeros=True)


class _Result(NamedTuple):
    total: jax.Array  # The sum of weight times loss.
    parts: TokenLoss  # GxT each.
    dx: jax.Array | None  # GxTxD: the gradient of the sum by x; None if it is not wanted.
    dw: jax.Array | None  # DxV: that by w.


class _Sums(NamedTuple):
    """What the loop over chunks carries; positions are in the order of `_trained_first`."""

    parts: tuple[jax.Array, ...]  # GxT each: the loss and the fields of TokenLoss.
    dx_GxTxD: jax.Array | None
    dw_GxVxD: jax.Array | None


def _compute(
    x_GxTxD: jax.Array,
    w_DxV: jax.Array,
    targets_GxT: jax.Array,
    weights_GxT: jax.Array,
    options: CrossEntropyOptions,
    *,
    wanted: Sequence[str],
) -> _Result:
    """Loop over the chunks: the loss, and those of its gradients by "x" and "w" that are wanted."""
    groups, length, d_model = x_GxTxD.shape
    vocab = w_DxV.shape[1]
    chunk = chunk_length(length, vocab, options.chunk)
    wide = wide_chunk_length(chunk, length, vocab, options.chunk)
    # The head is gathered once, before the loop, and cast while it is still sharded: half of the
    # bytes.
    layout = _layout()
    w = w_DxV.T if layout.head == "vd" else w_DxV
    axes = tuple({"v": "vocab", "d": "embed"}[axis] for axis in layout.head)
    w = fsdp.gather_weight(rules.constrain(w.astype(x_GxTxD.dtype), *axes), axes)

    order = _trained_first(weights_GxT)
    x, targets, weights = (
        _reorder(a, order.forth_GxT, padding=-length % wide)
        for a in (x_GxTxD, targets_GxT, weights_GxT)
    )

    def add_chunk(start: jax.Array, size: int, sums: _Sums) -> _Sums:
        def take(a: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(a, start, size, axis=1)

        def put(whole: jax.Array, part: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis=1)

        x_GxCxD = take(x)
        targets_GxC = take(targets)
        weights_GxC = take(weights)
        *parts_N, dlogits = _chunk_loss(
            x_GxCxD.reshape(-1, d_model),
            w,
            targets_GxC.ravel(),
            weights_GxC.ravel(),
            options,
            layout,
        )
        parts = tuple(
            put(whole, jnp.where(weights_GxC != 0, part_N.reshape(groups, size), 0.0))
            for whole, part_N in zip(sums.parts, parts_N, strict=True)
        )
        dx_GxTxD = sums.dx_GxTxD
        if dx_GxTxD is not None:
            dlogits = dlogits.astype(w.dtype)
            dx_NxD = jnp.einsum(f"{layout.logits},{layout.head}->nd", dlogits, w)
            dx_GxTxD = put(dx_GxTxD, dx_NxD.reshape(x_GxCxD.shape))
        dw_GxVxD = sums.dw_GxVxD
        if dw_GxVxD is not None:
            # One sum per device: they are added once, after the loop, and not in every turn.
            sizes = {"v": (vocab,), "n": (groups, size)}
            dw_GxVxD += jnp.einsum(
                f"{layout.logits.replace('n', 'gc')},gcd->gvd",
                dlogits.reshape(sum((sizes[axis] for axis in layout.logits), ())),
                x_GxCxD,
                preferred_element_type=jnp.float32,
            )
        return _Sums(parts, dx_GxTxD, dw_GxVxD)

    counts = chunk_counts(jnp.max(order.n_trained_Gx1), chunk, wide)
    sums = _zero_sums(x, vocab, wanted)
    if wide > chunk:
        sums = jax.lax.fori_loop(
            0, counts.wide, lambda i, sums: add_chunk(i * wide, wide, sums), sums
        )
    first = counts.wide * wide
    sums = jax.lax.fori_loop(
        0, counts.narrow, lambda i, sums: add_chunk(first + i * chunk, chunk, sums), sums
    )

    loss_GxT, *parts = (jnp.take_along_axis(p, order.back_GxT, axis=1) for p in sums.parts)
    dx, dw = _finish_gradients(sums, order, w_DxV.dtype)
    return _Result(jnp.sum(loss_GxT * weights_GxT), TokenLoss(*parts), dx, dw)


class _Order(NamedTuple):
    """A permutation of each group's positions that puts the trained ones first."""

    n_trained_Gx1: jax.Array
    forth_GxT: jax.Array  # Which position stands at each new index.
    back_GxT: jax.Array  # The new index of each position.


def _trained_first(weights_GxT: jax.Array) -> _Order:
    """Partition the positions stably, by running counts: trained ones, then the others."""
    trained_GxT = weights_GxT != 0
    n_trained_Gx1 = jnp.sum(trained_GxT, axis=1, keepdims=True)
    index_of_others_GxT = n_trained_Gx1 + jnp.cumsum(~trained_GxT, axis=1)
    back_GxT = jnp.where(trained_GxT, jnp.cumsum(trained_GxT, axis=1), index_of_others_GxT) - 1
    index_T = jnp.arange(weights_GxT.shape[1])

    def invert(back_T: jax.Array) -> jax.Array:
        return jnp.zeros_like(index_T).at[back_T].set(index_T)

    return _Order(n_trained_Gx1, jax.vmap(invert)(back_GxT), back_GxT)


def _reorder(a: jax.Array, index_GxT: jax.Array, *, padding: int) -> jax.Array:
    """Permute the positions of an array, GxT or GxTxD, and pad them at the end with zeros."""
    index = index_GxT[..., None] if a.ndim == 3 else index_GxT
    a = jnp.take_along_axis(a, index, axis=1)
    return jnp.pad(a, ((0, 0), (0, padding)) + ((0, 0),) * (a.ndim - 2))


def _zero_sums(x_GxTxD: jax.Array, vocab: int, wanted: Sequence[str]) -> _Sums:
    groups, length, d_model = x_GxTxD.shape
    zeros_GxT = jnp.zeros((groups, length), jnp.float32)
    n_parts = 1 + len(TokenLoss._fields)
    dx_GxTxD = jnp.zeros_like(x_GxTxD) if "x" in wanted else None
    dw_GxVxD = None
    if "w" in wanted:
        # The sum over devices, which is sharded along D, takes it as it lies. For DxV a second copy
        # (2 GiB for Llama-3.1-8B) was made.
        dw_GxVxD = jnp.zeros((groups, vocab, d_model), jnp.float32)
        dw_GxVxD = rules.constrain(dw_GxVxD, "batch", "vocab", None)
    return _Sums((zeros_GxT,) * n_parts, dx_GxTxD, dw_GxVxD)


def _finish_gradients(
    sums: _Sums, order: _Order, dtype: jnp.dtype
) -> tuple[jax.Array | None, jax.Array | None]:
    """The gradient by x in the order of positions, and that by w summed over devices, sharded."""
    dx, dw = sums.dx_GxTxD, None
    if dx is not None:
        dx = jnp.take_along_axis(dx, order.back_GxT[..., None], axis=1)
    if sums.dw_GxVxD is not None:
        dw = fsdp.scatter_gradient(sums.dw_GxVxD, ("vocab", "embed")).T.astype(dtype)
        if len(sums.dw_GxVxD) > 1:
            # Until it is sharded, `dw` is whole on every device. So the barrier has it sharded
            # before the backward pass of the layers, which begins with `dx`. On one device it would
            # only keep the transpose from canceling with that of a tied embedding.
            dx, dw = jax.lax.optimization_barrier((dx, dw))
    return dx, dw


def _chunk_loss(
    x_NxD: jax.Array,
    w: jax.Array,
    targets_N: jax.Array,
    weights_N: jax.Array,
    options: CrossEntropyOptions,
    layout: _Layout,
) -> tuple[jax.Array, ...]:
    """The loss and its three parts (N each), and weight * d loss / d raw logits, in the layout."""
    vocab = w.shape[layout.head.index("v")]
    axis = layout.logits.index("v")

    def over_vocab(a_N: jax.Array) -> jax.Array:
        return jnp.expand_dims(a_N, axis)

    raw = jnp.einsum(
        f"nd,{layout.head}->{layout.logits}", x_NxD, w, preferred_element_type=jnp.float32
    )
    logits = options.softcap * jnp.tanh(raw / options.softcap) if options.softcap else raw
    highest_N = jnp.max(logits, axis)
    exp = jnp.exp(logits - over_vocab(highest_N))
    normalizer_N = jnp.sum(exp, axis)
    log_z_N = jnp.log(normalizer_N) + highest_N
    target_logit_N = jnp.take_along_axis(logits, over_vocab(targets_N), axis).squeeze(axis)
    nll_N = log_z_N - target_logit_N
    z_N = options.z_loss * jnp.square(log_z_N)

    smoothing = options.label_smoothing
    is_target = jax.nn.one_hot(targets_N, vocab, dtype=jnp.bool_, axis=axis)
    if smoothing:
        low = smoothing / (vocab - 1)
        entropy = -((1 - smoothing) * math.log(1 - smoothing) if smoothing < 1 else 0.0)
        entropy -= (vocab - 1) * low * math.log(low)
        others_N = jnp.sum(logits, axis) - target_logit_N
        loss_N = log_z_N - (1 - smoothing) * target_logit_N - low * others_N - entropy + z_N
        soft_target = jnp.where(is_target, 1 - smoothing, low)
    else:
        loss_N = nll_N + z_N
        soft_target = is_target.astype(jnp.float32)
    z_slope_N = 1 + 2 * options.z_loss * log_z_N
    dlogits = exp / over_vocab(normalizer_N) * over_vocab(z_slope_N) - soft_target
    if options.softcap:
        dlogits *= 1 - jnp.square(logits / options.softcap)
    correct_N = (target_logit_N >= highest_N).astype(jnp.float32)
    return loss_N, nll_N, z_N, correct_N, dlogits * over_vocab(weights_N)
