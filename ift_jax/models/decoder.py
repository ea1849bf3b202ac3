"""The decoder-only transformer: Llama's shape, and what its relatives change.

Shape suffixes: B rows, L positions, D model width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ift_jax.config.schema import DecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.attention import Attention
from ift_jax.models.attention.kv import KVPair, LayerCache
from ift_jax.models.attention.mask import AttentionMask, Tokens
from ift_jax.models.dropout import apply_dropout, dropout_masks, dropout_row_keys, fold_keys
from ift_jax.models.embedding import EMBEDDING_AXES, embed
from ift_jax.models.layer_stack import run_layers, stack_layers
from ift_jax.models.rope import LayerRopes, Rope
from ift_jax.sharding import rules

# With hidden states of unit size, logits then start at a standard deviation of 0.02 * sqrt(D) (0.3
# at D = 192, 1.3 at 4,096), so that the first loss is near log(V), with a tied head or not.
EMBEDDING_STD = 0.02
GLOBAL_WINDOW = np.iinfo(np.int32).max  # The window of a layer that attends to everything.


def layer_windows(config: DecoderConfig) -> np.ndarray:
    """How many tokens each layer attends to, int32; GLOBAL_WINDOW if there is no limit."""
    local = np.array(config.local_layers())
    return np.where(local, config.sliding_window, GLOBAL_WINDOW).astype(np.int32)


def layer_dropout_rates(config: DecoderConfig) -> np.ndarray:
    """The dropout rate of each layer, float32.

    The schedule "linear" is LIMA's: l / (L - 1) * rate in layer l of L (arXiv:2305.11206).
    """
    lowest = 0.0 if config.dropout_schedule == "linear" else config.dropout
    return np.linspace(lowest, config.dropout, config.n_layers, dtype=np.float32)


class _PerLayer(NamedTuple):
    """What differs from layer to layer; each field has a leading axis of layers until a scan."""

    dropout: Any  # float32: `layer_dropout_rates`.
    number: Any  # int32, from 0.
    rotates: Any  # bool: `DecoderConfig.rotating_layers`.
    window: Any  # int32: `layer_windows`.


class _LayerMasks(NamedTuple):
    """The attention masks of a model's global and local layers."""

    global_layers: AttentionMask
    local_layers: AttentionMask

    @classmethod
    def create(
        cls, config: DecoderConfig, queries: Tokens, keys: Tokens, implementation: str
    ) -> "_LayerMasks":
        """Create only the masks that the config's layers need; one serves both kinds then."""

        def causal_mask(window: int | None) -> AttentionMask:
            return AttentionMask.create(
                queries, keys, causal=True, window=window, implementation=implementation
            )

        if not config.sliding_window:
            everywhere = causal_mask(None)
            return cls(everywhere, everywhere)
        local_layers = causal_mask(config.sliding_window)
        if GLOBAL_WINDOW not in layer_windows(config):
            return cls(local_layers, local_layers)
        # It has a window too, so that a scan over layers can select one of the two.
        return cls(causal_mask(int(GLOBAL_WINDOW)), local_layers)

    def of_layer(self, local: jax.Array | bool) -> AttentionMask:
        """That of a layer; `local` may be traced."""
        return self.local_layers.select(local, self.global_layers)


class Block(nnx.Module):
    """Attention and MLP, each with a residual and the norms that `norm_placement` names."""

    def __init__(self, config: DecoderConfig, *, keys: layers.Keys):
        c = config
        self.config = config
        self.attention = Attention(
            c.d_model,
            c.n_heads,
            c.n_kv_heads,
            c.head_dim,
            keys=keys,
            scale=c.query_scale or c.head_dim**-0.5,
            softcap=c.attention_softcap,
            qkv_bias=c.qkv_bias,
            output_bias=c.output_bias,
            clip_qkv=c.clip_qkv,
            qk_norm=c.qk_norm,
            norm_eps=c.norm_eps,
            norm_offset=c.norm_offset,
            rope_interleaved=c.rope_interleaved,
        )
        self.mlp = layers.MLP(c.d_model, c.d_ff, c.activation, bias=c.mlp_bias, keys=keys)

        def norm_at(*placements: str) -> layers.Norm | None:
            return _make_norm(c) if c.norm_placement in placements else None

        self.attention_pre_norm = norm_at("pre", "both", "parallel")
        self.attention_post_norm = norm_at("post", "both")
        self.mlp_pre_norm = norm_at("pre", "both")
        self.mlp_post_norm = norm_at("post", "both")

    def __call__(
        self,
        x_BxLxD: jax.Array,
        mask: AttentionMask,
        rope: Rope,
        *,
        keys_B: jax.Array | None = None,
        dropout: float | jax.Array = 0.0,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, KVPair]:
        """Apply the block.

        Args:
            x_BxLxD: Hidden states.
            mask: What each position may attend to.
            rope: The rotary positions of `x`.
            keys_B: The dropout keys of the rows; None: no dropout.
            dropout: The layer's dropout rate.
            cache: The keys and values of earlier tokens, to which those of `x` are added.

        Returns:
            BxLxD, and the keys and values that were attended to: those of `x`, or the cache's.
        """
        shape = x_BxLxD.shape[1:]
        attention_dropout, mlp_dropout = dropout_masks(keys_B, dropout, shape, shape)

        h = _apply_norm(self.attention_pre_norm, x_BxLxD)
        kv = self.attention.project_kv(h, rope)
        if cache is not None:
            kv = cache.write(kv)
        y = self.attention(h, kv, mask, rope=rope)
        x_BxLxD = x_BxLxD + self._finish(y, self.attention_post_norm, attention_dropout)

        if self.config.norm_placement != "parallel":  # Else both sublayers read the same states.
            h = _apply_norm(self.mlp_pre_norm, x_BxLxD)
        x_BxLxD = x_BxLxD + self._finish(self.mlp(h), self.mlp_post_norm, mlp_dropout)
        return x_BxLxD, kv

    def _finish(
        self, y: jax.Array, post_norm: layers.Norm | None, dropout: jax.Array | None
    ) -> jax.Array:
        """What is done to the output of attention or MLP before it is added to the residual."""
        y = _multiply(_apply_norm(post_norm, y), self.config.residual_multiplier)
        return rules.constrain(apply_dropout(y, dropout), "batch", "length", "embed_act")


def _make_norm(config: DecoderConfig) -> layers.Norm:
    c = config
    return layers.make_norm(c.norm, c.d_model, c.norm_eps, c.norm_offset)


def _apply_norm(norm: layers.Norm | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)


def _multiply(x: jax.Array, factor: float) -> jax.Array:
    """Multiply x by a number, in x's dtype."""
    return x if factor == 1.0 else x * jnp.asarray(factor, x.dtype)


class Decoder(nnx.Module):
    """Embedding, blocks, final norm, and a head unless it is tied."""

    def __init__(self, config: DecoderConfig, *, keys: layers.Keys, stacked: bool = True):
        c = config
        self.config = config
        sizes = (c.vocab_size, c.d_model)
        self.embedding = layers.init_weight(keys, sizes, EMBEDDING_AXES, EMBEDDING_STD)
        self.layers = stack_layers(
            lambda layer_keys: Block(c, keys=layer_keys), c.n_layers, keys, stacked
        )
        self.final_norm = _make_norm(c)
        head = None
        if not c.tied_embedding:
            head = layers.init_weight(keys, sizes[::-1], EMBEDDING_AXES[::-1], EMBEDDING_STD)
        self.head = head

    def _embed(self, tokens_BxL: jax.Array) -> jax.Array:
        x_BxLxD = embed(self.embedding[...], tokens_BxL, jnp.dtype(self.config.dtype))
        if self.config.scale_embedding:
            x_BxLxD = _multiply(x_BxLxD, self.config.d_model**0.5)
        return _multiply(x_BxLxD, self.config.embedding_multiplier)

    def _finish(self, x_BxLxD: jax.Array) -> jax.Array:
        """The normalized states; logits are scaled here, where a row is D numbers and not V."""
        return _multiply(self.final_norm(x_BxLxD), 1.0 / self.config.logits_scaling)

    def hidden(self, batch: dict[str, jax.Array], dropout_key: jax.Array | None) -> jax.Array:
        """Final, normalized states of a batch's tokens: BxLxD. `Model.hidden` has the details."""
        c = self.config
        tokens = Tokens(batch["segment_ids"], batch["positions"], batch.get("prefix_mask"))
        ropes = LayerRopes.at(tokens.positions_BxL, c)
        keys_B = dropout_row_keys(dropout_key, batch, c.dropout)
        masks = _LayerMasks.create(c, tokens, tokens, c.attention)

        def call(block: Block, x_BxLxD: jax.Array, of_layer: _PerLayer) -> jax.Array:
            local = of_layer.window < GLOBAL_WINDOW
            layer_keys_B = fold_keys(keys_B, of_layer.number)
            mask = masks.of_layer(local)
            rope = ropes.of_layer(local, of_layer.rotates)
            return block(x_BxLxD, mask, rope, keys_B=layer_keys_B, dropout=of_layer.dropout)[0]

        per_layer = _PerLayer(
            dropout=layer_dropout_rates(c),
            number=np.arange(c.n_layers),
            rotates=np.array(c.rotating_layers()),
            window=layer_windows(c),
        )
        x_BxLxD = self._embed(batch["tokens"])
        x_BxLxD = run_layers(self.layers, x_BxLxD, call, per_layer, c.remat)
        return self._finish(x_BxLxD)

    def hidden_with_cache(
        self,
        tokens_BxL: jax.Array,
        queries: Tokens,
        keys: Tokens,
        caches: list[LayerCache] | None = None,
    ) -> tuple[jax.Array, list[KVPair]]:
        """Compute final states of new tokens from cached keys and values (unrolled layers only).

        Args:
            tokens_BxL: The new tokens.
            queries: Where the new tokens stand.
            keys: What the cache's slots hold once the new tokens are in; without a cache, as
                `queries`.
            caches: One for each layer; None to start from nothing.

        Returns:
            BxLxD, and each layer's keys and values, those of the new tokens among them.
        """
        ropes = LayerRopes.at(queries.positions_BxL, self.config)
        masks = _LayerMasks.create(self.config, queries, keys, "plain")
        x_BxLxD = self._embed(tokens_BxL)
        rotates = self.config.rotating_layers()
        new_kv = []
        for i, window in enumerate(layer_windows(self.config).tolist()):
            local = window < GLOBAL_WINDOW
            mask = masks.local_layers if local else masks.global_layers
            rope = ropes.local_layers if local else ropes.global_layers
            rope = rope if rotates[i] else rope.without_rotation()
            cache = None if caches is None else caches[i]
            x_BxLxD, kv = self.layers[i](x_BxLxD, mask, rope, cache=cache)
            new_kv.append(kv)
        return self._finish(x_BxLxD), new_kv
