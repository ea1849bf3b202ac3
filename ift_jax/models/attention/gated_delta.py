"""The gated delta rule, a chunk of tokens at a time.

Each value head has a state S, a matrix from keys to values. Token t lets it decay, corrects what it
holds for the token's key, and reads it (Yang et al. 2024, arXiv:2412.06464):

    S = exp(g_t) S;  S = S + k_t (beta_t (v_t - S^T k_t))^T;  y_t = S^T q_t

Within a chunk of C tokens the corrections depend on each other by a triangular system, which is
solved by matrix products; between chunks there is only the state. The backward pass keeps the state
at the start of every chunk and computes everything else again.

Packed examples are kept apart by their segment ids: a token corrects and reads only what tokens of
its own segment wrote. Every sum of logarithms starts anew where a segment does, so that nothing of
an example, not even rounding, reaches the next one. Padding (segment 0) changes no state.

Shape suffixes: B rows, L positions, N chunks, C positions of a chunk (I, J: of a pair), G key
heads, R value heads of each, K width of a key, V width of a value.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

CHUNK = 64  # As in the kernels of flash-linear-attention; a power of two.
_BLOCK = 16  # Diagonal blocks that are inverted by doubling.
# The inverse is float32 even where other products are not (TPU).
_EXACT = jax.lax.Precision.HIGHEST


class DeltaInputs(NamedTuple):
    """What the rule reads of every token; `gated_delta_rule` casts the numbers to float32."""

    q_BxLxGxK: jax.Array
    k_BxLxGxK: jax.Array
    v_BxLxGxRxV: jax.Array
    log_decay_BxLxGxR: jax.Array  # At most 0.
    beta_BxLxGxR: jax.Array  # From 0 to 1: how far the state is corrected.
    segment_ids_BxL: jax.Array  # int32; 0 is padding.


def gated_delta_rule(
    inputs: DeltaInputs, state_BxGxRxKxV: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Apply the rule to rows of packed examples.

    Args:
        inputs: Any number of tokens.
        state_BxGxRxKxV: The state that tokens of segment 1 continue, float32; None: zeros.

    Returns:
        BxLxGxRxV, float32 (zeros for padding), and the state after the last token that is no
        padding.
    """
    B, L, G, K = inputs.k_BxLxGxK.shape
    R, V = inputs.v_BxLxGxRxV.shape[3:]
    owner_B = jnp.ones(B, jnp.int32)
    if state_BxGxRxKxV is None:
        state_BxGxRxKxV = jnp.zeros((B, G, R, K, V), jnp.float32)
        owner_B = jnp.zeros(B, jnp.int32)  # No token may read it: nothing depends on it.
    chunk = min(CHUNK, 1 << (L - 1).bit_length())
    n_padding = -L % chunk

    def chunked(x: jax.Array) -> jax.Array:
        """BxLx... -> NxBxCx..."""
        x = jnp.pad(x, [(0, 0), (0, n_padding)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(B, -1, chunk, *x.shape[2:]), 1, 0)

    chunks = DeltaInputs(*(chunked(part) for part in inputs))
    step = jax.checkpoint(_chunk, prevent_cse=False)
    (state, _), y_NxBxCxGxRxV = jax.lax.scan(step, (state_BxGxRxKxV, owner_B), chunks)
    return jnp.moveaxis(y_NxBxCxGxRxV, 0, 1).reshape(B, -1, G, R, V)[:, :L], state


def _chunk(
    carry: tuple[jax.Array, jax.Array], inputs: DeltaInputs
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """One chunk.

    Args:
        carry: The state BxGxRxKxV, and the segment that it belongs to, B (0: none).
        inputs: The chunk's tokens, with C in place of L.

    Returns:
        The carry after the chunk, and the output BxCxGxRxV.
    """
    state, owner_B = carry
    segments_BxC = inputs.segment_ids_BxL
    q, k = (_heads_first(x) for x in (inputs.q_BxLxGxK, inputs.k_BxLxGxK))  # BxGxCxK
    v = _heads_first(inputs.v_BxLxGxRxV)  # BxGxRxCxV
    is_token_BxC = segments_BxC > 0
    is_token = is_token_BxC[:, None, None, :]
    g = jnp.where(is_token, _heads_first(inputs.log_decay_BxLxGxR[..., None])[..., 0], 0.0)
    beta = jnp.where(is_token, _heads_first(inputs.beta_BxLxGxR[..., None])[..., 0], 0.0)

    # Which earlier tokens, and which state, belong to a token's own segment.
    C = segments_BxC.shape[1]
    index_C = jnp.arange(C)
    same_BxIxJ = (segments_BxC[:, :, None] == segments_BxC[:, None, :]) & is_token_BxC[:, None, :]
    same_BxIxJ &= index_C[:, None] >= index_C
    continues_BxC = is_token_BxC & (segments_BxC == owner_B[:, None])
    last_B = jnp.where(is_token_BxC, index_C, -1).max(axis=1)
    last_segment_B = jnp.take_along_axis(segments_BxC, jnp.maximum(last_B, 0)[:, None], axis=1)
    new_owner_B = jnp.where(last_B >= 0, last_segment_B[:, 0], owner_B)
    ends_BxC = is_token_BxC & (segments_BxC == new_owner_B[:, None])

    # Decays: from the segment's start (in this chunk), between tokens, to the end of the chunk.
    # (Each sum is that of two parts, see `_summable`.)
    parts = _summable(g)
    since_start = [
        jnp.einsum("bij,bgrj->bgri", same_BxIxJ.astype(g.dtype), part, precision=_EXACT)
        for part in parts
    ]
    total = [jnp.where(ends_BxC[:, None, None], part, 0.0).sum(axis=-1) for part in parts]
    between, to_end = jnp.float32(0.0), jnp.float32(0.0)
    for part_since_start, part_total in zip(since_start, total, strict=True):
        between += part_since_start[..., :, None] - part_since_start[..., None, :]
        to_end += part_total[..., None] - part_since_start
    between = _decay(same_BxIxJ[:, None, None], between)
    to_end = _decay(ends_BxC[:, None, None], to_end)
    from_state = _decay(continues_BxC[:, None, None], since_start[0] + since_start[1])
    state_decay = _decay((new_owner_B == owner_B)[:, None, None], total[0] + total[1])

    # The correction of token i is beta_i (v_i - what S holds for k_i), and S holds the
    # corrections of the tokens before it in the chunk too: (I + A) corrections = right-hand side.
    pairs = jnp.einsum("bgik,bgjk->bgij", k, k)[:, :, None] * between
    a = jnp.where(index_C[:, None] > index_C, beta[..., None] * pairs, 0.0)
    held = jnp.einsum("bgck,bgrkv->bgrcv", k, state) * from_state[..., None]
    corrections = jnp.matmul(_unit_lower_inverse(a), beta[..., None] * (v - held))

    reads = jnp.einsum("bgik,bgjk->bgij", q, k)[:, :, None] * between
    y = jnp.matmul(reads, corrections)
    y += jnp.einsum("bgck,bgrkv->bgrcv", q, state) * from_state[..., None]
    new_state = state_decay[..., None, None] * state
    new_state += jnp.einsum("bgck,bgrcv->bgrkv", k, to_end[..., None] * corrections)
    return (new_state, new_owner_B), jnp.moveaxis(y, 3, 1)


def _heads_first(x_BxCx: jax.Array) -> jax.Array:
    """BxCx(heads)xK -> Bx(heads)xCxK, float32."""
    return jnp.moveaxis(x_BxCx.astype(jnp.float32), 1, -2)


def _summable(g: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split numbers into multiples of 2 ** -7, whose sums are exact, and small rests.

    A difference of two long sums would carry the rounding of both. With decays around exp(-24) the
    output was wrong by 1.4e-4, and by another error at every place of an example in its row.
    """
    g = jnp.maximum(g, -200.0)  # Its exponential is 0 too, and sums stay below 2 ** 17.
    coarse = jax.lax.stop_gradient(jnp.round(g * 128.0) / 128.0)
    return coarse, g - coarse


def _decay(allowed: jax.Array, log_decay: jax.Array) -> jax.Array:
    """exp(log_decay) where it is allowed, else 0, with gradients of 0.

    Masking before the exponential matters: the sum over a later segment's tokens, or over those
    after a token, is positive, and its exponential would overflow.
    """
    return jnp.exp(jnp.where(allowed, log_decay, -jnp.inf))


@jax.custom_vjp
def _unit_lower_inverse(a: jax.Array) -> jax.Array:
    """The inverse of I + a for strictly lower triangular matrices a (the last two axes).

    The inverse of a block matrix [[P, 0], [Q, S]] is [[P', 0], [-S' Q P', S']], so halves are
    inverted first. Unlike the product of the powers of a, which needs as few products, no
    intermediate value is larger than those of the result.
    """
    n = a.shape[-1]
    if n <= _BLOCK:
        return _inverse_by_doubling(a)
    half = n // 2
    blocks = jnp.stack([a[..., :half, :half], a[..., half:, half:]])
    top, bottom = _unit_lower_inverse(blocks)
    corner = -_product(bottom, _product(a[..., half:, :half], top))
    upper = jnp.concatenate([top, jnp.zeros_like(top)], axis=-1)
    return jnp.concatenate([upper, jnp.concatenate([corner, bottom], axis=-1)], axis=-2)


def _inverse_by_doubling(a: jax.Array) -> jax.Array:
    """`_unit_lower_inverse` with the blocks of a step side by side in one matrix."""
    n = a.shape[-1]
    index = jnp.arange(n)
    inverse = jnp.broadcast_to(jnp.eye(n, dtype=a.dtype), a.shape)
    size = 1
    while size < n:
        pair, is_second = index // (2 * size), index // size % 2 == 1
        is_corner = (pair[:, None] == pair) & is_second[:, None] & ~is_second
        corners = jnp.where(is_corner, a, 0.0)
        inverse -= corners if size == 1 else _product(inverse, _product(corners, inverse))
        size *= 2
    return inverse


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=_EXACT)


def _inverse_forward(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    inverse = _unit_lower_inverse(a)
    return inverse, inverse


def _inverse_backward(inverse: jax.Array, d_inverse: jax.Array) -> tuple[jax.Array]:
    transposed = jnp.swapaxes(inverse, -1, -2)
    return (-jnp.tril(_product(transposed, _product(d_inverse, transposed)), -1),)


_unit_lower_inverse.defvjp(_inverse_forward, _inverse_backward)


def gated_delta_step(
    inputs: DeltaInputs, state_BxGxRxKxV: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Apply the rule to one token of each row, all of segment 1 or padding.

    Returns:
        Bx1xGxRxV, float32 (arbitrary for padding), and the state after the token.
    """
    q, k, v, g, beta = (part[:, 0].astype(jnp.float32) for part in inputs[:-1])
    is_token = (inputs.segment_ids_BxL[:, 0] > 0)[:, None, None]
    state = jnp.exp(jnp.where(is_token, g, 0.0))[..., None, None] * state_BxGxRxKxV
    held = jnp.einsum("bgk,bgrkv->bgrv", k, state)
    corrections = jnp.where(is_token, beta, 0.0)[..., None] * (v - held)
    state += jnp.einsum("bgk,bgrv->bgrkv", k, corrections)
    return jnp.einsum("bgk,bgrkv->bgrv", q, state)[:, None], state
