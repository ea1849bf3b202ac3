"""Which positions each query may attend to.

`attention_mask` is the one rule. `AttentionMask` holds it in the form that the chosen
implementation of attention reads, because an array of all pairs is affordable only for short rows.

Packed examples are kept apart here: each token carries the number of its example in the row
(`segment_ids`), and a query attends to keys of its own segment only. Positions restart in every
segment, so "not after the query" and "inside the window" are also meant within the example.

Shape suffixes: B rows, L query positions, S key positions, H query heads, W distances.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.models.attention.implementations import choose_implementation
from ift_jax.models.attention.relative_bias import bias_of_pairs


class Tokens(NamedTuple):
    """What attention must know about the tokens along an axis."""

    segment_ids_BxL: jax.Array  # int32; the number of the example in its row, 0: padding.
    positions_BxL: jax.Array  # int32; the position in the example.
    # bool; True for prefix tokens: every token of the segment may attend to them, even earlier
    # ones.
    prefix_BxL: jax.Array | None = None
    # bool; True for an encoder's tokens among a decoder's keys: every token of the segment may
    # attend to them, at any distance, as their positions are those of another text.
    memory_BxL: jax.Array | None = None


def attention_mask(
    queries: Tokens, keys: Tokens, *, causal: bool, window: int | jax.Array | None = None
) -> jax.Array:
    """Which keys each query may attend to: bool BxLxS.

    A query attends to the keys of its own segment (0 is no segment). If `causal`, only to those
    not after it or in the segment's prefix; with a `window`, only to those less than `window`
    positions away. The same function serves training, both sides of an encoder-decoder, and
    decoding, where empty cache slots are segment 0.
    """
    q_segments_BxLx1 = queries.segment_ids_BxL[:, :, None]
    k_segments_Bx1xS = keys.segment_ids_BxL[:, None, :]
    allowed_BxLxS = (q_segments_BxLx1 == k_segments_Bx1xS) & (k_segments_Bx1xS > 0)
    distance_BxLxS = queries.positions_BxL[:, :, None] - keys.positions_BxL[:, None, :]
    is_memory_Bx1xS = False if keys.memory_BxL is None else keys.memory_BxL[:, None, :]
    if causal:
        not_after_BxLxS = distance_BxLxS >= 0
        if keys.prefix_BxL is not None:
            not_after_BxLxS |= keys.prefix_BxL[:, None, :]
        allowed_BxLxS &= not_after_BxLxS | is_memory_Bx1xS
    if window is not None:
        allowed_BxLxS &= (jnp.abs(distance_BxLxS) < window) | is_memory_Bx1xS
    return allowed_BxLxS


class KeySpan(NamedTuple):
    """The first and last key that each query may attend to; last < first where there is none."""

    first_BxL: jax.Array  # int32; an index in the row.
    last_BxL: jax.Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "queries",
        "keys",
        "window",
        "allowed_BxLxS",
        "bias_HxLxS",
        "bias_HxW",
        "key_span",
    ],
    meta_fields=["implementation", "causal"],
)
@dataclasses.dataclass(frozen=True)
class AttentionMask:
    """What each query may attend to, in the form that the implementation reads; see `create`.

    It also carries the bias that is added to the scores, whose form depends on the implementation
    too.
    """

    implementation: str  # "xla", "blockwise", "tiled", "splash" or "triton".
    causal: bool
    queries: Tokens
    keys: Tokens
    window: jax.Array | None = None  # int32 scalar; None without a window.
    allowed_BxLxS: jax.Array | None = None  # For "xla": the mask itself.
    bias_HxLxS: jax.Array | None = None  # For "xla": float32.
    # For "blockwise" and "tiled": float32, by distance 1 - L .. S - 1.
    bias_HxW: jax.Array | None = None
    key_span: KeySpan | None = None  # For "tiled" and the kernels.

    @classmethod
    def create(
        cls,
        queries: Tokens,
        keys: Tokens,
        *,
        causal: bool,
        window: int | None = None,
        bias_HxW: jax.Array | None = None,
        adds_scores: bool = False,
        implementation: str = "plain",
    ) -> "AttentionMask":
        """Choose the implementation, and bring `attention_mask` into the form that it reads.

        Args:
            queries: The tokens that attend.
            keys: The tokens attended to.
            causal: As for `attention_mask`.
            window: As for `attention_mask`.
            bias_HxW: A bias by the distance in the row, key index - query index = 1 - L .. S - 1.
            adds_scores: Whether more is added that is no part of the mask and that the kernels
                cannot read: the sinks of heads, or a bias that `with_bias` adds later.
            implementation: The `requested` argument of `choose_implementation`.
        """
        n_queries = queries.positions_BxL.shape[1]
        n_keys = keys.positions_BxL.shape[1]
        chosen = choose_implementation(
            implementation,
            n_queries,
            n_keys,
            windowed=window is not None,
            biased=bias_HxW is not None or adds_scores,
        )
        mask = cls(
            chosen, causal, queries, keys, window=None if window is None else jnp.int32(window)
        )
        if chosen == "blockwise":  # It computes the mask per block.
            return mask.with_bias(bias_HxW)
        allowed_BxLxS = attention_mask(queries, keys, causal=causal, window=window)
        if chosen == "xla":
            return dataclasses.replace(mask, allowed_BxLxS=allowed_BxLxS).with_bias(bias_HxW)
        # The compiler fuses the comparison of pairs into these reductions: no BxLxS is ever stored.
        index_S = jnp.arange(n_keys, dtype=jnp.int32)
        key_span = KeySpan(
            first_BxL=jnp.where(allowed_BxLxS, index_S, n_keys).min(axis=-1),
            last_BxL=jnp.where(allowed_BxLxS, index_S, -1).max(axis=-1),
        )
        bias_HxW = bias_HxW if chosen == "tiled" else None  # The kernels read none.
        return dataclasses.replace(mask, key_span=key_span, bias_HxW=bias_HxW)

    def with_bias(self, bias_HxW: jax.Array | None) -> "AttentionMask":
        """The same mask with this bias; it must have been created with a bias or `adds_scores`."""
        if bias_HxW is None or self.implementation in ("blockwise", "tiled"):
            return dataclasses.replace(self, bias_HxW=bias_HxW)
        n_queries = self.queries.positions_BxL.shape[1]
        return dataclasses.replace(self, bias_HxLxS=bias_of_pairs(bias_HxW, n_queries))

    def select(self, condition: jax.Array | bool, other: "AttentionMask") -> "AttentionMask":
        """This mask where `condition` (a scalar, which may be traced) is true, else `other`.

        Both must have been created with the same implementation and fields. Arrays that they
        share are not copied.
        """
        if self is other:
            return self

        def select_array(ours: jax.Array, theirs: jax.Array) -> jax.Array:
            return ours if ours is theirs else jnp.where(condition, ours, theirs)

        return jax.tree.map(select_array, self, other)
