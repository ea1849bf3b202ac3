"""Attention: who sees whom, the one core function, and the module with its projections.

Shape suffixes: B rows, L query positions, S key positions, H query heads, G key-value heads
(H is a multiple of G), K width of a head, D model width.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ift_jax import partitioning
from ift_jax.models.layers import ATTENTION, Keys, Linear, RMSNorm, drop
from ift_jax.models.rope import Rope

DENSE_PAIRS = 2048 * 2048  # Of a query and a key in a row: with more, "plain" is blockwise.
BLOCK_PAIRS = 1 << 20  # Of a block.
KERNELS = {"splash": "tpu", "triton": "gpu"}  # And the platform of each; interpreted elsewhere.
HIDDEN_SCORE = -1e30  # Of a hidden key: exp() of it is exactly 0 beside any visible one.


class Tokens(NamedTuple):
    """What attention must know of the tokens along an axis."""

    segment_ids_BxL: jax.Array  # int32; an example's number in its row, 0: padding.
    positions_BxL: jax.Array  # int32; the position in the segment.
    prefix_BxL: jax.Array | None = None  # bool; visible to the whole segment, even backwards.


class KeysValues(NamedTuple):
    """Keys and values with the heads before the positions: the layout that products read."""

    keys_BxGxSxK: jax.Array
    values_BxGxSxK: jax.Array

    def write(self, new: "KeysValues", slot: jax.Array) -> "KeysValues":
        """Puts `new` (a few positions) at `slot`, an int32 scalar, of all rows."""
        put = jax.lax.dynamic_update_slice_in_dim
        return KeysValues(*(put(old, n, slot, axis=2) for old, n in zip(self, new, strict=True)))


def visible(
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
class Sight:
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
        cls, queries: Tokens, keys: Tokens, *, causal: bool, window: int | None = None,
        bias_HxW: jax.Array | None = None, implementation: str = "plain",
    ) -> "Sight":  # fmt: skip
        """What `visible` says, for an `implementation` of `choose`.

        `bias_HxW` is by the distance of the places in the row: key - query = 1 - L .. S - 1.
        """
        L, S = queries.positions_BxL.shape[1], keys.positions_BxL.shape[1]
        biased, windowed = bias_HxW is not None, window is not None
        chosen = choose(implementation, L, S, windowed=windowed, biased=biased)
        sight = cls(chosen, causal, queries, keys, window if window is None else jnp.int32(window))
        if chosen == "blockwise":
            return dataclasses.replace(sight, bias=bias_HxW)
        sees_BxLxS = visible(queries, keys, causal=causal, window=window)
        if chosen == "xla":
            bias_HxLxS = None if bias_HxW is None else by_place(bias_HxW, L)
            return dataclasses.replace(sight, mask_BxLxS=sees_BxLxS, bias=bias_HxLxS)
        # By reductions into which the comparison of pairs is fused: no BxLxS is ever stored.
        place_S = jnp.arange(S, dtype=jnp.int32)
        first_BxL = jnp.where(sees_BxLxS, place_S, S).min(axis=-1)
        last_BxL = jnp.where(sees_BxLxS, place_S, -1).max(axis=-1)
        return dataclasses.replace(sight, span_BxL=(first_BxL, last_BxL))

    def where(self, condition: jax.Array | bool, other: "Sight") -> "Sight":
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
    platform = partitioning.platform()
    # Each kernel is imported where it is taken: Pallas takes a while, and a CPU does without.
    if wanted == "auto":
        wanted = {on: kernel for kernel, on in KERNELS.items()}.get(platform, "plain")
        if wanted == "triton":
            from ift_jax.models.triton import runs_here

            wanted = wanted if runs_here() else "plain"
    if wanted == "splash" and not biased:
        from ift_jax.models.splash import MAX_WINDOWED

        wanted = "plain" if windowed and S > MAX_WINDOWED else wanted
    if wanted in KERNELS and not biased:
        return wanted
    return "xla" if L * S <= DENSE_PAIRS else "blockwise"


def by_place(bias_HxW: jax.Array, L: int) -> jax.Array:
    """HxLxS from a bias by distance 1 - L .. S - 1: by reshaping, whose gradient is no scatter."""
    padded, W = jnp.pad(bias_HxW, ((0, 0), (0, 1))), bias_HxW.shape[1]
    # Row i of a W wide reading of the repeated vector starts i places further back.
    return jnp.tile(padded, (1, L))[:, : L * W].reshape(-1, L, W)[:, :, L - 1 :]


def attention(
    q_BxLxHxK: jax.Array, keys_values: KeysValues, sight: Sight, *, scale: float,
    softcap: float = 0.0,
) -> jax.Array:  # fmt: skip
    """Softmax attention: BxLx(H*K), the heads side by side, in q's dtype.

    Scores (times `scale`) and softmax are float32. Head h reads key-value head h // (H / G). A
    query that sees no key (padding, or a decoder segment whose encoder part is empty) gets
    exactly zero, and its gradients are zero. A softcap > 0 makes the scores
    softcap * tanh(scores / softcap) (Gemma 2); then the bias is added.

    Where the length is cut over devices, each computes its queries against all keys, which it
    gathers (as Llama 3 does, arXiv:2407.21783, section 3.3.2).
    """
    options: Any = dict(scale=scale, softcap=softcap)
    if sight.implementation == "xla":
        assert sight.mask_BxLxS is not None
        gathered = ("batch", "kv_heads_act", None, None)
        keys_values = KeysValues(*(partitioning.constrain(part, *gathered) for part in keys_values))
        return dense(q_BxLxHxK, keys_values, sight.mask_BxLxS, bias_HxLxS=sight.bias, **options)
    (L, H), (G, S) = q_BxLxHxK.shape[1:3], keys_values.keys_BxGxSxK.shape[1:3]
    interpret = partitioning.platform() != KERNELS.get(sight.implementation)

    def local(
        q: jax.Array, keys_values: KeysValues, queries: Any, keys: Tokens,
        window: jax.Array | None, bias_HxW: jax.Array | None,
    ) -> jax.Array:  # fmt: skip
        keys_values = partitioning.whole_length(keys_values, 2, S)
        keys = partitioning.whole_length(keys, 1, S)
        if sight.implementation in KERNELS:
            ids = (queries[0].segment_ids_BxL, keys.segment_ids_BxL)
            given = (q, *keys_values, *ids, *queries[1])
            if sight.implementation == "triton":
                from ift_jax.models.triton import triton

                return triton(*given, interpret=interpret, **options)
            from ift_jax.models.splash import splash

            return splash(*given, windowed=window is not None, interpret=interpret, **options)
        before = jnp.int32(0 if q.shape[1] == L else jax.lax.axis_index("sequence") * q.shape[1])
        sees = functools.partial(visible, keys=keys, causal=sight.causal, window=window)
        bias = bias_HxW if bias_HxW is None else (bias_HxW, L - before)
        return blockwise(q, keys_values, queries[0], sees, bias, **options)

    # Fewer key-value heads than devices along `tensor`: each device needs one of its own.
    repeats = 1 if partitioning.divides("kv_heads_act", G) else H // G
    keys_values = KeysValues(*(jnp.repeat(part, repeats, axis=1) for part in keys_values))
    of_q, of_tokens = ("batch", "length", "heads_act", None), ("batch", "length")
    y_BxLxHxK = partitioning.on_shards(
        local, of_q, (of_q, q_BxLxHxK), (("batch", "kv_heads_act", "length", None), keys_values),
        (of_tokens, (sight.queries, sight.span_BxL)), (of_tokens, sight.keys), ((), sight.window),
        (("heads_act", None), sight.bias),
    )  # fmt: skip
    return y_BxLxHxK.reshape(*q_BxLxHxK.shape[:2], -1)


def blockwise(
    q_BxLxHxK: jax.Array, keys_values: KeysValues, queries: Tokens,
    sees: Callable[[Tokens], jax.Array], bias: tuple[jax.Array, jax.Array] | None, *,
    scale: float, softcap: float,
) -> jax.Array:  # fmt: skip
    """`dense` for a block of queries after the other: BxLxHxK; no HxLxS is ever stored.

    The scores, the mask and the bias of a block are computed again in the backward pass (after
    Rabe and Staats 2021, arXiv:2112.05682). `sees` gives the mask of some queries; `bias` is one
    by distance (HxW) and where in it the distance 1 - (first query) stands, plus one.
    """
    (B, L, H, K), S = q_BxLxHxK.shape, keys_values.keys_BxGxSxK.shape[2]
    n = max(16, 1 << max(BLOCK_PAIRS // S, 1).bit_length() - 1)  # Queries of a block.
    n = min(n, L)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), keys_values)  # Gradients add up in it.

    def of_block(block: Any) -> jax.Array:
        i, q, tokens = block
        kv = jax.tree.map(lambda a: a.astype(q.dtype), wide)
        bias_HxNxS = None
        if bias is not None:
            padded_HxW = jnp.pad(bias[0], ((0, 0), (n, 0)))
            of_n = jax.lax.dynamic_slice_in_dim(padded_HxW, bias[1] - i * n, S + n - 1, axis=1)
            bias_HxNxS = by_place(of_n, n)
        y = dense(q, kv, sees(tokens), scale=scale, softcap=softcap, bias_HxLxS=bias_HxNxS)
        return y.reshape(B, n, H, K)

    def cut(a: jax.Array) -> jax.Array:
        a = jnp.pad(a, [(0, 0), (0, -L % n), *[(0, 0)] * (a.ndim - 2)])
        return a.reshape(B, -1, n, *a.shape[2:]).swapaxes(0, 1)

    blocks = jax.tree.map(cut, (q_BxLxHxK, queries))
    y = jax.lax.map(jax.checkpoint(of_block), (jnp.arange(-(-L // n)), *blocks))
    return y.swapaxes(0, 1).reshape(B, -1, H, K)[:, :L]


def dense(
    q_BxLxHxK: jax.Array, keys_values: KeysValues, visible_BxLxS: jax.Array, *,
    scale: float, softcap: float = 0.0, bias_HxLxS: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """`attention` with all scores at once, in plain products: the reference.

    The queries of the heads that share a key-value head become rows of one batched product,
    which is faster than repeating the keys.
    """
    keys_BxGxSxK, values_BxGxSxK = keys_values
    B, L, H, K = q_BxLxHxK.shape
    G, S = keys_BxGxSxK.shape[1:3]
    r = H // G
    # Rows are (position, head of the group): positions stay the major axis, as they were.
    q_BxGxRxK = q_BxLxHxK.reshape(B, L, G, r, K).swapaxes(1, 2).reshape(B, G, L * r, K)
    product = "bgrk,bgsk->bgrs"
    scores = jnp.einsum(product, q_BxGxRxK, keys_BxGxSxK, preferred_element_type=jnp.float32)
    scores = scores.reshape(B, G, L, r, S) * scale
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    if bias_HxLxS is not None:
        scores += bias_HxLxS.reshape(G, r, L, S).swapaxes(1, 2)
    scores = jnp.where(visible_BxLxS[:, None, :, None, :], scores, HIDDEN_SCORE)
    weights = jax.nn.softmax(scores, axis=-1)
    weights_BxGxRxS = weights.astype(values_BxGxSxK.dtype).reshape(B, G, L * r, S)
    y_BxGxRxK = jnp.einsum("bgrs,bgsk->bgrk", weights_BxGxRxS, values_BxGxSxK)
    y_BxLxE = y_BxGxRxK.reshape(B, G, L, r, K).swapaxes(1, 2).reshape(B, L, H * K)
    return jnp.where(visible_BxLxS.any(axis=-1, keepdims=True), y_BxLxE, 0)


class Attention(nnx.Module):
    """The projections around `attention`, all flat: D x (heads * head_dim)."""

    def __init__(
        self, d_model: int, n_heads: int, n_kv_heads: int, head_dim: int, *, keys: Keys,
        scale: float, query_std: float | None = None, softcap: float = 0.0, qkv_bias: bool = False,
        output_bias: bool = False, qk_norm: str = "none", norm_eps: float = 1e-6,
        norm_offset: float = 0.0,
    ):  # fmt: skip
        self.head_dim, self.scale, self.softcap, self.qk_norm = head_dim, scale, softcap, qk_norm
        q_size, kv_size = n_heads * head_dim, n_kv_heads * head_dim
        q_axes, kv_axes, out_axes = ("embed", "heads"), ("embed", "kv_heads"), ("heads", "embed")
        self.query = Linear(d_model, q_size, q_axes, std=query_std, bias=qkv_bias, keys=keys)
        self.key = Linear(d_model, kv_size, kv_axes, bias=qkv_bias, keys=keys)
        self.value = Linear(d_model, kv_size, kv_axes, bias=qkv_bias, keys=keys)
        self.out = Linear(q_size, d_model, out_axes, bias=output_bias, keys=keys)
        sizes = {"none": None, "head": (head_dim, head_dim), "full": (q_size, kv_size)}[qk_norm]
        self.query_norm = RMSNorm(sizes[0], norm_eps, norm_offset) if sizes else None
        self.key_norm = RMSNorm(sizes[1], norm_eps, norm_offset) if sizes else None

    def _heads(self, x_BxLxE: jax.Array, norm: RMSNorm | None, rope: Rope | None) -> jax.Array:
        if norm is not None and self.qk_norm == "full":
            x_BxLxE = norm(x_BxLxE)
        x_BxLxHxK = x_BxLxE.reshape(*x_BxLxE.shape[:-1], -1, self.head_dim)
        if norm is not None and self.qk_norm == "head":
            x_BxLxHxK = norm(x_BxLxHxK)
        return x_BxLxHxK if rope is None else rope.rotate(x_BxLxHxK)

    def keys_values(self, x_BxSxD: jax.Array, rope: Rope | None = None) -> KeysValues:
        """The keys and values of these positions."""
        keys_BxSxGxK = self._heads(self.key(x_BxSxD), self.key_norm, rope)
        values_BxSxGxK = self._heads(self.value(x_BxSxD), None, None)
        return KeysValues(keys_BxSxGxK.swapaxes(1, 2), values_BxSxGxK.swapaxes(1, 2))

    def __call__(
        self, x_BxLxD: jax.Array, keys_values: KeysValues, sight: Sight, *,
        rope: Rope | None = None, dropout_BxHxS: jax.Array | None = None,
    ) -> jax.Array:  # fmt: skip
        """What the queries of `x` read from `keys_values`, projected back: BxLxD.

        Dropout multiplies the attention weights, one mask for all queries (T5), and so as well
        the values that they weight; there are then as many key-value heads as query heads.
        """
        q_BxLxHxK = self._heads(self.query(x_BxLxD), self.query_norm, rope)
        q_BxLxHxK = partitioning.constrain(q_BxLxHxK, "batch", "length", "heads_act", None)
        if dropout_BxHxS is not None:
            values = drop(keys_values.values_BxGxSxK, dropout_BxHxS[..., None])
            keys_values = keys_values._replace(values_BxGxSxK=values)
        y_BxLxE = attention(q_BxLxHxK, keys_values, sight, scale=self.scale, softcap=self.softcap)
        if sight.implementation not in KERNELS:  # They name theirs, with what the gradient needs.
            y_BxLxE = checkpoint_name(y_BxLxE, ATTENTION)
        return self.out(partitioning.constrain(y_BxLxE, "batch", "length", "heads_act"))
