"""The one attention function, which calls the chosen implementation, and the attention module.

Shape suffixes: B rows, L query positions, S key positions, H query heads, G key-value heads
(H is a multiple of G), K width of a head, D model width, E all heads side by side; W distances.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ift_jax.models.attention.implementations import KERNEL_PLATFORMS
from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import AttentionMask, KeySpan, Tokens, attention_mask
from ift_jax.models.attention.reference import DistanceBias, blockwise_attention, dense_attention
from ift_jax.models.attention.tiled import tiled_attention
from ift_jax.models.dropout import apply_dropout
from ift_jax.models.layers import Keys, LayerNorm, Linear, Norm, RMSNorm, rms_normalize
from ift_jax.models.remat import ATTENTION_OUTPUT
from ift_jax.models.rope import Rope
from ift_jax.sharding import rules
from ift_jax.sharding.local import Sharded, call_on_shards, gather_length


def attention(
    q_BxLxHxK: jax.Array,
    kv: KVPair,
    mask: AttentionMask,
    *,
    scale: float,
    softcap: float = 0.0,
    sinks_H: jax.Array | None = None,
) -> jax.Array:
    """Compute softmax attention by the implementation that `mask` was created for.

    Head h reads key-value head h // (H / G). Scores and softmax are float32. A query that may
    attend to no key (padding, or a decoder segment whose encoder part is empty) gets exactly zero,
    and its gradients are zero.

    If the sequence is sharded, each device gathers all keys and attends from its own queries (as
    Llama 3 does, arXiv:2407.21783, section 3.3.2).

    Args:
        q_BxLxHxK: Queries.
        kv: Keys and values, BxGxSxK.
        mask: What each query may attend to, and the bias.
        scale: Multiplies the scores.
        softcap: If positive, scores become softcap * tanh(scores / softcap) (Gemma 2), before the
            bias is added.
        sinks_H: A score of each head that takes its part of the softmax, and has no value
            (GPT-OSS). A kernel cannot read them: the mask must be created with `adds_scores`.

    Returns:
        BxLx(H*K), the heads side by side, in q's dtype.
    """
    if mask.implementation == "xla":
        assert mask.allowed_BxLxS is not None
        axes = ("batch", "kv_heads_act", None, None)
        gathered_kv = KVPair(*(rules.constrain(part, *axes) for part in kv))
        return dense_attention(
            q_BxLxHxK,
            gathered_kv,
            mask.allowed_BxLxS,
            bias_HxLxS=mask.bias_HxLxS,
            scale=scale,
            softcap=softcap,
            sinks_H=sinks_H,
        )
    B, L, H, K = q_BxLxHxK.shape
    G, S = kv.keys_BxGxSxK.shape[1:3]
    options = _AttentionOptions(L, S, mask.implementation, mask.causal, scale, softcap)
    # If the key-value heads do not divide over `tensor`, repeat them so that each query head has
    # its own.
    repeats = 1 if rules.divides("kv_heads_act", G) else H // G
    kv = KVPair(*(jnp.repeat(part, repeats, axis=1) for part in kv))
    q_axes = ("batch", "length", "heads_act", None)
    kv_axes = ("batch", "kv_heads_act", "length", None)
    token_axes = ("batch", "length")
    y_BxLxHxK = call_on_shards(
        functools.partial(_attend_locally, options),
        [
            Sharded(q_axes, q_BxLxHxK),
            Sharded(kv_axes, kv),
            Sharded(token_axes, (mask.queries, mask.key_span)),
            Sharded(token_axes, mask.keys),
            Sharded((), mask.window),
            Sharded(("heads_act", None), mask.bias_HxW),
            Sharded(("heads_act",), sinks_H),
        ],
        out_axes=q_axes,
    )
    return y_BxLxHxK.reshape(B, L, H * K)


class _AttentionOptions(NamedTuple):
    """What each device must know about the attention of whole rows."""

    n_queries: int
    n_keys: int
    implementation: str
    causal: bool
    scale: float
    softcap: float


def _attend_locally(
    options: _AttentionOptions,
    q: jax.Array,
    kv: KVPair,
    queries: tuple[Tokens, KeySpan | None],
    keys: Tokens,
    window: jax.Array | None,
    bias_HxW: jax.Array | None,
    sinks_H: jax.Array | None,
) -> jax.Array:
    """The output of one device's queries; it may hold only part of the rows, queries and heads."""
    kv = gather_length(kv, axis=2, length=options.n_keys)
    keys = gather_length(keys, axis=1, length=options.n_keys)
    tokens, key_span = queries
    if options.implementation in KERNEL_PLATFORMS:
        assert key_span is not None
        assert sinks_H is None, "a kernel was chosen for attention with sinks"
        return _run_kernel(options, q, kv, tokens, keys, key_span, windowed=window is not None)
    n_queries = q.shape[1]
    is_sharded = n_queries != options.n_queries
    first_query = jnp.int32(jax.lax.axis_index("sequence") * n_queries if is_sharded else 0)
    bias = None if bias_HxW is None else DistanceBias(bias_HxW, first_query)
    if options.implementation == "tiled":
        assert key_span is not None
        return tiled_attention(
            q,
            kv,
            tokens,
            keys,
            key_span,
            causal=options.causal,
            scale=options.scale,
            softcap=options.softcap,
            window=window,
            bias=bias,
            sinks_H=sinks_H,
        )
    mask_of = functools.partial(attention_mask, keys=keys, causal=options.causal, window=window)
    return blockwise_attention(
        q,
        kv,
        tokens,
        mask_of,
        bias,
        scale=options.scale,
        softcap=options.softcap,
        sinks_H=sinks_H,
    )


def _run_kernel(
    options: _AttentionOptions,
    q: jax.Array,
    kv: KVPair,
    queries: Tokens,
    keys: Tokens,
    key_span: KeySpan,
    *,
    windowed: bool,
) -> jax.Array:
    """Import and call a Pallas kernel; outside its platform it is interpreted."""
    segments = (queries.segment_ids_BxL, keys.segment_ids_BxL)
    interpret = rules.platform() != KERNEL_PLATFORMS[options.implementation]
    if options.implementation == "triton":
        from ift_jax.models.attention.triton import triton_attention

        return triton_attention(
            q,
            kv,
            *segments,
            key_span,
            scale=options.scale,
            softcap=options.softcap,
            interpret=interpret,
        )
    from ift_jax.models.attention.splash import splash_attention

    return splash_attention(
        q,
        kv,
        *segments,
        key_span,
        scale=options.scale,
        softcap=options.softcap,
        windowed=windowed,
        interpret=interpret,
    )


def _make_norm(kind: str, n_heads: int, head_dim: int, eps: float, offset: float) -> Norm | None:
    """The norm of queries, or of keys, that `Attention` describes as `qk_norm`."""
    if kind == "none":
        return None
    if kind == "each_head":
        return LayerNorm(head_dim, eps, offset, weighted=True, biased=False, n_heads=n_heads)
    return RMSNorm(n_heads * head_dim if kind == "full" else head_dim, eps, offset)


class Attention(nnx.Module):
    """The projections around `attention`, all flat: D x (heads * head_dim)."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        *,
        keys: Keys,
        scale: float,
        query_std: float | None = None,
        softcap: float = 0.0,
        qkv_bias: bool = False,
        output_bias: bool = False,
        qk_norm: str = "none",
        norm_eps: float = 1e-6,
        norm_offset: float = 0.0,
        clip_qkv: float = 0.0,
        rope_interleaved: bool = False,
        sinks: bool = False,
        gated: bool = False,
        value_norm: bool = False,
        values_are_keys: bool = False,
        has_kv: bool = True,
        kv_width: int = 0,
    ):
        """Initialize the projections.

        Args:
            d_model: D.
            n_heads: H.
            n_kv_heads: G.
            head_dim: K.
            keys: Random keys of the weights.
            scale: Multiplies the scores.
            query_std: The deviation of the query's weights; None: d_model ** -0.5.
            softcap: As for `attention`.
            qkv_bias: Whether the projections of queries, keys and values have a bias.
            output_bias: Whether that of the output has one.
            qk_norm: Normalizes queries and keys over nothing ("none"), each head ("head", or
                "head_after_rope"), all heads ("full"), or each head by a `LayerNorm` with weights
                of its own ("each_head").
            norm_eps: As for `RMSNorm`.
            norm_offset: As for `RMSNorm`.
            clip_qkv: Queries, keys and values are clipped to this size; 0: not.
            rope_interleaved: As for `Rope.rotate`.
            sinks: Whether each head has a sink, at first 0.
            gated: Whether the output is multiplied by the sigmoid of a gate, which follows each
                head of the query projection.
            value_norm: Whether each head's values are normalized, without a weight.
            values_are_keys: Whether the key projection's output, before norm and rotation, is both.
            has_kv: Whether there are keys and values; without, only those of another layer are
                attended to.
            kv_width: The width of what keys and values are projected from; 0: d_model.
        """
        self.head_dim = head_dim
        self.scale = scale
        self.softcap = softcap
        self.qk_norm = qk_norm
        self.clip_qkv = clip_qkv
        self.rope_interleaved = rope_interleaved
        self.gated = gated
        self.value_norm_eps = norm_eps if value_norm else None
        q_size = n_heads * head_dim
        kv_size = n_kv_heads * head_dim
        q_axes = ("embed", "heads")
        kv_axes = ("embed", "kv_heads")
        query_size = 2 * q_size if gated else q_size
        self.query = Linear(d_model, query_size, q_axes, std=query_std, bias=qkv_bias, keys=keys)

        def kv_projection() -> Linear:
            return Linear(kv_width or d_model, kv_size, kv_axes, bias=qkv_bias, keys=keys)

        self.key = kv_projection() if has_kv else None
        self.value = kv_projection() if has_kv and not values_are_keys else None
        self.out = Linear(q_size, d_model, q_axes[::-1], bias=output_bias, keys=keys)
        self.sinks = nnx.Param(jnp.zeros((n_heads,)), axes=("heads",)) if sinks else None
        eps, offset = norm_eps, norm_offset
        self.query_norm = _make_norm(qk_norm, n_heads, head_dim, eps, offset)
        self.key_norm = _make_norm(qk_norm, n_kv_heads, head_dim, eps, offset) if has_kv else None

    def _split_heads(self, x_BxLxE: jax.Array, norm: Norm | None, rope: Rope | None) -> jax.Array:
        """Normalize over all heads, clip, split, normalize each head, and rotate: BxLxHxK."""
        if norm is not None and self.qk_norm == "full":
            x_BxLxE = norm(x_BxLxE)
        if self.clip_qkv:
            x_BxLxE = jnp.clip(x_BxLxE, -self.clip_qkv, self.clip_qkv)
        x_BxLxHxK = x_BxLxE.reshape(*x_BxLxE.shape[:-1], -1, self.head_dim)
        if norm is not None and self.qk_norm in ("head", "each_head"):
            x_BxLxHxK = norm(x_BxLxHxK)
        if rope is not None:
            x_BxLxHxK = rope.rotate(x_BxLxHxK, interleaved=self.rope_interleaved)
        if norm is not None and self.qk_norm == "head_after_rope":
            x_BxLxHxK = norm(x_BxLxHxK)
        return x_BxLxHxK

    def _project_queries(self, x_BxLxD: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The queries of all heads, and their gates if there are any: BxLxE each."""
        projected = self.query(x_BxLxD)
        if not self.gated:
            return projected, None
        by_head = projected.reshape(*x_BxLxD.shape[:-1], -1, 2, self.head_dim)
        q_BxLxE, gate_BxLxE = (
            by_head[..., part, :].reshape(*x_BxLxD.shape[:-1], -1) for part in range(2)
        )
        return q_BxLxE, gate_BxLxE

    def project_kv(self, x_BxSxD: jax.Array, rope: Rope | None = None) -> KVPair:
        """The keys and values of these positions, BxGxSxK each."""
        assert self.key is not None, "the keys and values are those of another layer"
        keys_BxSxE = self.key(x_BxSxD)
        values_BxSxE = keys_BxSxE if self.value is None else self.value(x_BxSxD)
        keys_BxSxGxK = self._split_heads(keys_BxSxE, self.key_norm, rope)
        values_BxSxGxK = self._split_heads(values_BxSxE, None, None)
        if self.value_norm_eps is not None:
            normalized_BxSxGxK = rms_normalize(values_BxSxGxK, self.value_norm_eps)
            values_BxSxGxK = normalized_BxSxGxK.astype(values_BxSxGxK.dtype)
        return KVPair(keys_BxSxGxK.swapaxes(1, 2), values_BxSxGxK.swapaxes(1, 2))

    def __call__(
        self,
        x_BxLxD: jax.Array,
        kv: KVPair,
        mask: AttentionMask,
        *,
        rope: Rope | None = None,
        dropout_BxHxS: jax.Array | None = None,
    ) -> jax.Array:
        """Attend from the queries of `x` to `kv`, and project the result back: BxLxD.

        Args:
            x_BxLxD: What queries are projected from.
            kv: Keys and values, BxGxSxK, from `project_kv` or from a cache.
            mask: What each query may attend to.
            rope: The positions of the queries; None without rotary positions.
            dropout_BxHxS: Multiplies the attention weights, one mask for all queries of a row
                (T5). So it may as well multiply the values, as it does here; there must then be
                as many key-value heads as query heads.
        """
        q_BxLxE, gate_BxLxE = self._project_queries(x_BxLxD)
        q_BxLxHxK = self._split_heads(q_BxLxE, self.query_norm, rope)
        if rope is not None and rope.query_scale_BxL is not None:
            q_BxLxHxK *= rope.query_scale_BxL[..., None, None].astype(q_BxLxHxK.dtype)
        q_BxLxHxK = rules.constrain(q_BxLxHxK, "batch", "length", "heads_act", None)
        if dropout_BxHxS is not None:
            dropped = apply_dropout(kv.values_BxGxSxK, dropout_BxHxS[..., None])
            kv = kv._replace(values_BxGxSxK=dropped)
        y_BxLxE = attention(
            q_BxLxHxK,
            kv,
            mask,
            scale=self.scale,
            softcap=self.softcap,
            sinks_H=None if self.sinks is None else self.sinks[...],
        )
        if mask.implementation in ("xla", "blockwise"):
            # The others name their own output, together with what their gradient needs.
            y_BxLxE = checkpoint_name(y_BxLxE, ATTENTION_OUTPUT)
        if gate_BxLxE is not None:
            y_BxLxE = y_BxLxE * jax.nn.sigmoid(gate_BxLxE)
        return self.out(rules.constrain(y_BxLxE, "batch", "length", "heads_act"))
