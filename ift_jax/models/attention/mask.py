"""Which keys each query sees."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.sharding import rules

DENSE_PAIRS = 2048 * 2048  # Of a query and a key in a row: with more, "plain" is blockwise.


KERNELS = {"splash": "tpu", "triton": "gpu"}  # And the platform of each; interpreted elsewhere.


class Tokens(NamedTuple):
    """What attention must know of the tokens along an axis."""

    segment_ids_BxL: jax.Array  # int32; an example's number in its row, 0: padding.
    positions_BxL: jax.Array  # int32; the position in the segment.
    prefix_BxL: jax.Array | None = None  # bool; visible to the whole segment, even backwards.


def attention_mask(
    queries: Tokens, keys: Tokens, *, causal: bool, window: int | jax.Array | None = None
) -> jax.Array:
    """Which keys each query sees: bool BxLxS.

    A query sees the keys of its own segment (0 is no segment), with `causal` only those not
    after it or in the segment's prefix, with `window` only those less than `window` away.
    Packed examples hence never see each other, and the same function serves training, both
    sides of an encoder-decoder and decoding (where cache slots that hold nothing are segment 0).
    """
    q_BxLx1, k_Bx1xS = queries.segment_ids_BxL[:, :, None], keys.segment_ids_BxL[:, None, :]
    sees_BxLxS = (q_BxLx1 == k_Bx1xS) & (k_Bx1xS > 0)
    distance_BxLxS = queries.positions_BxL[:, :, None] - keys.positions_BxL[:, None, :]
    if causal:
        in_time_BxLxS = distance_BxLxS >= 0
        if keys.prefix_BxL is not None:
            in_time_BxLxS |= keys.prefix_BxL[:, None, :]
        sees_BxLxS &= in_time_BxLxS
    if window is not None:
        sees_BxLxS &= jnp.abs(distance_BxLxS) < window
    return sees_BxLxS


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["queries", "keys", "window", "mask_BxLxS", "bias", "span_BxL"],
    meta_fields=["implementation", "causal"],
)
@dataclasses.dataclass(frozen=True)
class AttentionMask:
    """What each query sees, in the form that the implementation of the attention wants."""

    implementation: str  # "xla", "blockwise", "splash" or "triton".
    causal: bool
    queries: Tokens
    keys: Tokens
    window: jax.Array | None = None  # int32 scalar.
    mask_BxLxS: jax.Array | None = None  # xla.
    bias: jax.Array | None = None  # float32, added to the scores: HxLxS, HxW for blockwise.
    span_BxL: tuple[jax.Array, jax.Array] | None = None  # Kernels: first and last key in the row.

    @classmethod
    def of(
        cls,
        queries: Tokens,
        keys: Tokens,
        *,
        causal: bool,
        window: int | None = None,
        bias_HxW: jax.Array | None = None,
        implementation: str = "plain",
    ) -> "AttentionMask":
        """What `attention_mask` says, for an `implementation` of `choose`.

        `bias_HxW` is by the distance of the places in the row: key - query = 1 - L .. S - 1.
        """
        L, S = queries.positions_BxL.shape[1], keys.positions_BxL.shape[1]
        biased, windowed = bias_HxW is not None, window is not None
        chosen = choose(implementation, L, S, windowed=windowed, biased=biased)
        sight = cls(chosen, causal, queries, keys, window if window is None else jnp.int32(window))
        if chosen == "blockwise":
            return dataclasses.replace(sight, bias=bias_HxW)
        sees_BxLxS = attention_mask(queries, keys, causal=causal, window=window)
        if chosen == "xla":
            bias_HxLxS = None if bias_HxW is None else by_place(bias_HxW, L)
            return dataclasses.replace(sight, mask_BxLxS=sees_BxLxS, bias=bias_HxLxS)
        # By reductions into which the comparison of pairs is fused: no BxLxS is ever stored.
        place_S = jnp.arange(S, dtype=jnp.int32)
        first_BxL = jnp.where(sees_BxLxS, place_S, S).min(axis=-1)
        last_BxL = jnp.where(sees_BxLxS, place_S, -1).max(axis=-1)
        return dataclasses.replace(sight, span_BxL=(first_BxL, last_BxL))

    def where(self, condition: jax.Array | bool, other: "AttentionMask") -> "AttentionMask":
        """This one where a scalar (known to a scan over layers) is true, else the other."""
        either = lambda a, b: a if a is b else jnp.where(condition, a, b)  # noqa: E731
        return self if self is other else jax.tree.map(either, self, other)


def choose(wanted: str, L: int, S: int, *, windowed: bool, biased: bool) -> str:
    """The implementation: a config's `model.attention`, or "plain" (blockwise where it is long).

    "auto" on TPU and GPU, and the kernels' own names, are plain where the kernel cannot: with a
    bias, and splash with a window over more than 65,536 keys. docs/attention.md has the table.
    """
    if wanted in ("xla", "blockwise"):
        return wanted
    platform = rules.platform()
    # Each kernel is imported where it is taken: Pallas takes a while, and a CPU does without.
    if wanted == "auto":
        wanted = {on: kernel for kernel, on in KERNELS.items()}.get(platform, "plain")
        if wanted == "triton":
            from ift_jax.models.attention.triton import runs_here

            wanted = wanted if runs_here() else "plain"
    if wanted == "splash" and not biased:
        from ift_jax.models.attention.splash import MAX_WINDOWED

        wanted = "plain" if windowed and S > MAX_WINDOWED else wanted
    if wanted in KERNELS and not biased:
        return wanted
    return "xla" if L * S <= DENSE_PAIRS else "blockwise"


def by_place(bias_HxW: jax.Array, L: int) -> jax.Array:
    """HxLxS from a bias by distance 1 - L .. S - 1: by reshaping, whose gradient is no scatter."""
    padded, W = jnp.pad(bias_HxW, ((0, 0), (0, 1))), bias_HxW.shape[1]
    # Row i of a W wide reading of the repeated vector starts i places further back.
    return jnp.tile(padded, (1, L))[:, : L * W].reshape(-1, L, W)[:, :, L - 1 :]
