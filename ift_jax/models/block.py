"""A layer of the decoder: attention and feed-forward layer, and what its families add to them.

Shape suffixes: B rows, L positions, D model width, P width of a layer's own embeddings.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ift_jax.config.schema import DecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.attention import Attention
from ift_jax.models.attention.kv import KVPair, LayerCache, LayerState
from ift_jax.models.attention.linear_attention import LinearAttention
from ift_jax.models.attention.mask import AttentionMask
from ift_jax.models.dropout import apply_dropout, dropout_masks
from ift_jax.models.experts import Experts
from ift_jax.models.layer_inputs import LayerInputGate
from ift_jax.models.rope import Rope
from ift_jax.models.router import RouterSums, zero_router_sums
from ift_jax.models.shared_expert import SharedExpert
from ift_jax.sharding import rules


class Block(nnx.Module):
    """Attention and MLP, each with a residual and the norms that `norm_placement` names."""

    def __init__(self, config: DecoderConfig, kind: str, *, keys: layers.Keys):
        """Initialize a layer of a kind that `DecoderConfig.layer_kinds` names."""
        c = config
        self.config = config
        # Whether the layer has the sliding window, where its kind says it.
        self.local = kind.startswith("local") if c.splits_local else None
        self.shares_kv = "_shared" in kind
        is_linear = kind.startswith("linear")
        self.attention = None if is_linear else _make_attention(c, self, keys)
        self.linear_attention = LinearAttention(c, keys=keys) if is_linear else None
        has_experts = c.n_experts > 0 and not kind.endswith("_dense")
        self.mlp = _make_experts(c, keys) if has_experts else _make_mlp(c, self, keys)
        has_shared = has_experts and c.shared_d_ff > 0
        self.shared_expert = SharedExpert(c, keys=keys) if has_shared else None

        def norm_at(*placements: str) -> layers.Norm | None:
            return make_decoder_norm(c) if c.norm_placement in placements else None

        self.attention_pre_norm = norm_at("pre", "both", "parallel", "parallel_norms")
        self.attention_post_norm = norm_at("post", "both")
        self.mlp_pre_norm = norm_at("pre", "both", "parallel_norms")
        self.mlp_post_norm = norm_at("post", "both")
        self.layer_input = LayerInputGate(c, keys=keys) if c.layer_input_dim else None
        self.scalar = nnx.Param(jnp.ones((1,)), axes=("constant",)) if c.layer_scalar else None

    def __call__(
        self,
        x_BxLxD: jax.Array,
        mask: AttentionMask,
        rope: Rope,
        *,
        keys_B: jax.Array | None = None,
        dropout: float | jax.Array = 0.0,
        cache: LayerCache | None = None,
        input_BxLxP: jax.Array | None = None,
        shared_kv: KVPair | None = None,
    ) -> tuple[jax.Array, LayerState, RouterSums | None]:
        """Apply the block.

        Args:
            x_BxLxD: Hidden states.
            mask: What each position may attend to.
            rope: The rotary positions of `x`.
            keys_B: The dropout keys of the rows; None: no dropout.
            dropout: The layer's dropout rate.
            cache: What was kept of earlier tokens, to which that of `x` is added.
            input_BxLxP: The layer's part of what `LayerInputs` gives.
            shared_kv: Another layer's keys and values of all tokens; only a layer without its own
                reads them.

        Returns:
            BxLxD; what is kept of all tokens, those of `x` and the cache's, or `shared_kv`; and
            the sums of the router, None without experts.
        """
        shape = x_BxLxD.shape[1:]
        attention_dropout, mlp_dropout = dropout_masks(keys_B, dropout, shape, shape)

        h = apply_norm(self.attention_pre_norm, x_BxLxD)
        y, kept = self._attend(h, mask, rope, cache, shared_kv)
        # Both read `x`, each its own norm of it.
        if self.config.norm_placement == "parallel_norms":
            h = apply_norm(self.mlp_pre_norm, x_BxLxD)
        x_BxLxD = x_BxLxD + self._finish(y, self.attention_post_norm, attention_dropout)

        if not self.config.norm_placement.startswith("parallel"):
            h = apply_norm(self.mlp_pre_norm, x_BxLxD)
        y, router = self._feed_forward(h, mask.queries.segment_ids_BxL > 0)
        x_BxLxD = x_BxLxD + self._finish(y, self.mlp_post_norm, mlp_dropout)
        if self.layer_input is not None:
            assert input_BxLxP is not None
            x_BxLxD = self.layer_input(x_BxLxD, input_BxLxP)
        if self.scalar is not None:
            x_BxLxD = x_BxLxD * jax.lax.stop_gradient(self.scalar[...]).astype(x_BxLxD.dtype)
        return x_BxLxD, kept, router

    def _attend(
        self,
        h_BxLxD: jax.Array,
        mask: AttentionMask,
        rope: Rope,
        cache: LayerCache | None,
        shared_kv: KVPair | None,
    ) -> tuple[jax.Array, LayerState]:
        """Apply the layer's kind of attention: BxLxD, and what is kept of all tokens."""
        if self.linear_attention is not None:
            state = None if cache is None else cache.kept
            assert not isinstance(state, KVPair)
            return self.linear_attention(h_BxLxD, mask.queries.segment_ids_BxL, state)
        assert self.attention is not None
        if self.shares_kv:
            assert shared_kv is not None
            return self.attention(h_BxLxD, shared_kv, mask, rope=rope), shared_kv
        kv = self.attention.project_kv(h_BxLxD, rope)
        if cache is not None:
            kv = cache.write(kv)
        return self.attention(h_BxLxD, kv, mask, rope=rope), kv

    def _feed_forward(
        self, h_BxLxD: jax.Array, is_token_BxL: jax.Array
    ) -> tuple[jax.Array, RouterSums | None]:
        """The MLP, or the experts and the sums of their router; zeros if only others have any."""
        if not isinstance(self.mlp, Experts):
            n_experts = self.config.n_experts
            return self.mlp(h_BxLxD), zero_router_sums(n_experts) if n_experts else None
        y_BxLxD, router = self.mlp(h_BxLxD, is_token_BxL)
        if self.shared_expert is not None:
            y_BxLxD += self.shared_expert(h_BxLxD)
        return y_BxLxD, router

    def _finish(
        self, y: jax.Array, post_norm: layers.Norm | None, dropout: jax.Array | None
    ) -> jax.Array:
        """What is done to the output of attention or MLP before it is added to the residual."""
        y = layers.multiply(apply_norm(post_norm, y), self.config.residual_multiplier)
        return rules.constrain(apply_dropout(y, dropout), "batch", "length", "embed_act")


def _make_attention(config: DecoderConfig, block: Block, keys: layers.Keys) -> Attention:
    c = config
    local = block.local is not False
    head_dim = c.head_dim_of(local=local)
    return Attention(
        c.d_model,
        c.n_heads,
        c.kv_heads_of(local=local),
        head_dim,
        keys=keys,
        scale=c.query_scale or head_dim**-0.5,
        softcap=c.attention_softcap,
        qkv_bias=c.qkv_bias,
        output_bias=c.output_bias,
        clip_qkv=c.clip_qkv,
        qk_norm=c.qk_norm,
        norm_eps=c.norm_eps,
        norm_offset=c.norm_offset,
        rope_interleaved=c.rope_interleaved,
        sinks=c.attention_sinks,
        gated=c.attention_gate,
        value_norm=c.value_norm,
        values_are_keys=c.global_values_are_keys and not local,
        has_kv=not block.shares_kv,
    )


def _make_experts(config: DecoderConfig, keys: layers.Keys) -> Experts:
    c = config
    return Experts(
        c.d_model,
        c.d_ff,
        c.activation,
        n_experts=c.n_experts,
        experts_per_token=c.experts_per_token,
        normalize=c.normalize_expert_weights,
        limit=c.activation_limit,
        slope=c.activation_slope,
        bias=c.mlp_bias,
        keys=keys,
    )


def _make_mlp(config: DecoderConfig, block: Block, keys: layers.Keys) -> layers.MLP:
    c = config
    d_ff = c.dense_d_ff if c.n_experts else c.d_ff
    if c.double_d_ff_where_shared and block.shares_kv:
        d_ff *= 2
    return layers.MLP(c.d_model, d_ff, c.activation, gated=c.mlp_gated, bias=c.mlp_bias, keys=keys)


def make_decoder_norm(config: DecoderConfig) -> layers.Norm:
    """A norm of the hidden states."""
    c = config
    return layers.make_norm(c.norm, c.d_model, c.norm_eps, c.norm_offset)


def apply_norm(norm: layers.Norm | None, x: jax.Array) -> jax.Array:
    """Normalize x where there is a norm."""
    return x if norm is None else norm(x)
