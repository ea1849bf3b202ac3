"""Attention: who sees whom, the one core function, and the module with its projections.

Shape suffixes: B rows, L query positions, S key positions, H query heads, G key-value heads
(H is a multiple of G), K width of a head, D model width.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ift_jax.models.attention.mask import KERNELS, AttentionMask, Tokens, attention_mask
from ift_jax.models.attention.reference import KVPair, blockwise, dense
from ift_jax.models.layers import ATTENTION, Keys, Linear, RMSNorm, drop
from ift_jax.models.rope import Rope
from ift_jax.sharding import rules


def attention(
    q_BxLxHxK: jax.Array,
    keys_values: KVPair,
    sight: AttentionMask,
    *,
    scale: float,
    softcap: float = 0.0,
) -> jax.Array:
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
        keys_values = KVPair(*(rules.constrain(part, *gathered) for part in keys_values))
        return dense(q_BxLxHxK, keys_values, sight.mask_BxLxS, bias_HxLxS=sight.bias, **options)
    (L, H), (G, S) = q_BxLxHxK.shape[1:3], keys_values.keys_BxGxSxK.shape[1:3]
    interpret = rules.platform() != KERNELS.get(sight.implementation)

    def local(
        q: jax.Array,
        keys_values: KVPair,
        queries: Any,
        keys: Tokens,
        window: jax.Array | None,
        bias_HxW: jax.Array | None,
    ) -> jax.Array:
        keys_values = rules.whole_length(keys_values, 2, S)
        keys = rules.whole_length(keys, 1, S)
        if sight.implementation in KERNELS:
            ids = (queries[0].segment_ids_BxL, keys.segment_ids_BxL)
            given = (q, *keys_values, *ids, *queries[1])
            if sight.implementation == "triton":
                from ift_jax.models.attention.triton import triton

                return triton(*given, interpret=interpret, **options)
            from ift_jax.models.attention.splash import splash

            return splash(*given, windowed=window is not None, interpret=interpret, **options)
        before = jnp.int32(0 if q.shape[1] == L else jax.lax.axis_index("sequence") * q.shape[1])
        sees = functools.partial(attention_mask, keys=keys, causal=sight.causal, window=window)
        bias = bias_HxW if bias_HxW is None else (bias_HxW, L - before)
        return blockwise(q, keys_values, queries[0], sees, bias, **options)

    # Fewer key-value heads than devices along `tensor`: each device needs one of its own.
    repeats = 1 if rules.divides("kv_heads_act", G) else H // G
    keys_values = KVPair(*(jnp.repeat(part, repeats, axis=1) for part in keys_values))
    of_q, of_tokens = ("batch", "length", "heads_act", None), ("batch", "length")
    y_BxLxHxK = rules.on_shards(
        local,
        of_q,
        (of_q, q_BxLxHxK),
        (("batch", "kv_heads_act", "length", None), keys_values),
        (of_tokens, (sight.queries, sight.span_BxL)),
        (of_tokens, sight.keys),
        ((), sight.window),
        (("heads_act", None), sight.bias),
    )
    return y_BxLxHxK.reshape(*q_BxLxHxK.shape[:2], -1)


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
    ):
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

    def keys_values(self, x_BxSxD: jax.Array, rope: Rope | None = None) -> KVPair:
        """The keys and values of these positions."""
        keys_BxSxGxK = self._heads(self.key(x_BxSxD), self.key_norm, rope)
        values_BxSxGxK = self._heads(self.value(x_BxSxD), None, None)
        return KVPair(keys_BxSxGxK.swapaxes(1, 2), values_BxSxGxK.swapaxes(1, 2))

    def __call__(
        self,
        x_BxLxD: jax.Array,
        keys_values: KVPair,
        sight: AttentionMask,
        *,
        rope: Rope | None = None,
        dropout_BxHxS: jax.Array | None = None,
    ) -> jax.Array:
        """What the queries of `x` read from `keys_values`, projected back: BxLxD.

        Dropout multiplies the attention weights, one mask for all queries (T5), and so as well
        the values that they weight; there are then as many key-value heads as query heads.
        """
        q_BxLxHxK = self._heads(self.query(x_BxLxD), self.query_norm, rope)
        q_BxLxHxK = rules.constrain(q_BxLxHxK, "batch", "length", "heads_act", None)
        if dropout_BxHxS is not None:
            values = drop(keys_values.values_BxGxSxK, dropout_BxHxS[..., None])
            keys_values = keys_values._replace(values_BxGxSxK=values)
        y_BxLxE = attention(q_BxLxHxK, keys_values, sight, scale=self.scale, softcap=self.softcap)
        if sight.implementation not in KERNELS:  # They name theirs, with what the gradient needs.
            y_BxLxE = checkpoint_name(y_BxLxE, ATTENTION)
        return self.out(rules.constrain(y_BxLxE, "batch", "length", "heads_act"))
