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
from ift_jax.models.dropout import apply_dropout
from ift_jax.models.layers import Keys, Linear, RMSNorm
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
) -> jax.Array:
    """The output of one device's queries; it may hold only part of the rows, queries and heads."""
    kv = gather_length(kv, axis=2, length=options.n_keys)
    keys = gather_length(keys, axis=1, length=options.n_keys)
    tokens, key_span = queries
    if key_span is not None:
        return _run_kernel(options, q, kv, tokens, keys, key_span, windowed=window is not None)
    n_queries = q.shape[1]
    is_sharded = n_queries != options.n_queries
    first_query = jnp.int32(jax.lax.axis_index("sequence") * n_queries if is_sharded else 0)
    mask_of = functools.partial(attention_mask, keys=keys, causal=options.causal, window=window)
    bias = None if bias_HxW is None else DistanceBias(bias_HxW, first_query)
    return blockwise_attention(
        q, kv, tokens, mask_of, bias, scale=options.scale, softcap=options.softcap
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
    ):
        """Initialize the projections.

        Args:
            d_model: D.
            n_heads: H.
            n_kv_heads: G.
            head_dim: K.
            keys: Random keys of the weights.
            scale: Multiplies the scores.
            query_std: The deviation of the query projection's weights; None: d_model ** -0.5.
            softcap: As for `attention`.
            qkv_bias: Whether the projections of queries, keys and values have a bias.
            output_bias: Whether the output projection has a bias.
            qk_norm: Normalizes queries and keys over nothing ("none"), each head ("head", or
                "head_after_rope") or all heads ("full").
            norm_eps: As for `RMSNorm`.
            norm_offset: As for `RMSNorm`.
            clip_qkv: Queries, keys and values are clipped to this size; 0: not.
            rope_interleaved: As for `Rope.rotate`.
        """
        self.head_dim = head_dim
        self.scale = scale
        self.softcap = softcap
        self.qk_norm = qk_norm
        self.clip_qkv = clip_qkv
        self.rope_interleaved = rope_interleaved
        q_size = n_heads * head_dim
        kv_size = n_kv_heads * head_dim
        q_axes = ("embed", "heads")
        kv_axes = ("embed", "kv_heads")
        out_axes = ("heads", "embed")
        self.query = Linear(d_model, q_size, q_axes, std=query_std, bias=qkv_bias, keys=keys)
        self.key = Linear(d_model, kv_size, kv_axes, bias=qkv_bias, keys=keys)
        self.value = Linear(d_model, kv_size, kv_axes, bias=qkv_bias, keys=keys)
        self.out = Linear(q_size, d_model, out_axes, bias=output_bias, keys=keys)
        sizes = None
        if qk_norm != "none":
            sizes = (q_size, kv_size) if qk_norm == "full" else (head_dim, head_dim)
        self.query_norm = RMSNorm(sizes[0], norm_eps, norm_offset) if sizes else None
        self.key_norm = RMSNorm(sizes[1], norm_eps, norm_offset) if sizes else None

    def _split_heads(
        self, x_BxLxE: jax.Array, norm: RMSNorm | None, rope: Rope | None
    ) -> jax.Array:
        """Clip, normalize (over all heads or per head), split and rotate the heads: BxLxHxK."""
        if self.clip_qkv:
            x_BxLxE = jnp.clip(x_BxLxE, -self.clip_qkv, self.clip_qkv)
        if norm is not None and self.qk_norm == "full":
            x_BxLxE = norm(x_BxLxE)
        x_BxLxHxK = x_BxLxE.reshape(*x_BxLxE.shape[:-1], -1, self.head_dim)
        if norm is not None and self.qk_norm == "head":
            x_BxLxHxK = norm(x_BxLxHxK)
        if rope is not None:
            x_BxLxHxK = rope.rotate(x_BxLxHxK, interleaved=self.rope_interleaved)
        if norm is not None and self.qk_norm == "head_after_rope":
            x_BxLxHxK = norm(x_BxLxHxK)
        return x_BxLxHxK

    def project_kv(self, x_BxSxD: jax.Array, rope: Rope | None = None) -> KVPair:
        """The keys and values of these positions, BxGxSxK each."""
        keys_BxSxGxK = self._split_heads(self.key(x_BxSxD), self.key_norm, rope)
        values_BxSxGxK = self._split_heads(self.value(x_BxSxD), None, None)
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
        q_BxLxHxK = self._split_heads(self.query(x_BxLxD), self.query_norm, rope)
        if rope is not None and rope.query_scale_BxL is not None:
            q_BxLxHxK *= rope.query_scale_BxL[..., None, None].astype(q_BxLxHxK.dtype)
        q_BxLxHxK = rules.constrain(q_BxLxHxK, "batch", "length", "heads_act", None)
        if dropout_BxHxS is not None:
            dropped = apply_dropout(kv.values_BxGxSxK, dropout_BxHxS[..., None])
            kv = kv._replace(values_BxGxSxK=dropped)
        y_BxLxE = attention(q_BxLxHxK, kv, mask, scale=self.scale, softcap=self.softcap)
        if mask.implementation not in KERNEL_PLATFORMS:
            # The kernels name their own output, together with what their gradient needs.
            y_BxLxE = checkpoint_name(y_BxLxE, ATTENTION_OUTPUT)
        return self.out(rules.constrain(y_BxLxE, "batch", "length", "heads_act"))
