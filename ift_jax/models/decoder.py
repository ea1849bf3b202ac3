"""The decoder-only transformer: Llama's shape and what its relatives change."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ift_jax.config.schema import DecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.attention import Attention
from ift_jax.models.attention.mask import AttentionMask, Tokens
from ift_jax.models.attention.reference import KVPair
from ift_jax.models.rope import Rope, Ropes
from ift_jax.sharding import rules

# With hidden states of unit size, logits then start at a deviation of 0.02 * sqrt(D) (0.3 at
# 192, 1.3 at 4,096), so that the first loss is near log(V), tied or not.
EMBEDDING_STD = 0.02
EVERYTHING = np.iinfo(np.int32).max  # The window of a layer that sees all.


class Block(nnx.Module):
    """Attention and MLP, each with a residual and the norms that `norm_placement` names."""

    def __init__(self, config: DecoderConfig, *, keys: layers.Keys):
        c = self.config = config
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
            qk_norm=c.qk_norm,
            norm_eps=c.norm_eps,
            norm_offset=c.norm_offset,
        )
        self.mlp = layers.MLP(c.d_model, c.d_ff, c.activation, bias=c.mlp_bias, keys=keys)

        def norm(placement: str) -> layers.RMSNorm | None:
            if c.norm_placement not in (placement, "both"):
                return None
            return layers.RMSNorm(c.d_model, c.norm_eps, c.norm_offset)

        self.attention_pre_norm, self.attention_post_norm = norm("pre"), norm("post")
        self.mlp_pre_norm, self.mlp_post_norm = norm("pre"), norm("post")

    def __call__(
        self,
        x_BxLxD: jax.Array,
        sight: AttentionMask,
        rope: Rope,
        *,
        keys_B: jax.Array | None = None,
        dropout: float | jax.Array = 0.0,
        cache: tuple[KVPair, jax.Array] | None = None,
    ) -> tuple[jax.Array, KVPair]:
        """Returns the layer's output and its keys and values.

        `dropout` is the layer's rate, used where there are `keys_B`. With a cache and the slot
        that the new tokens take in it, those are the cache's.
        """
        shape = x_BxLxD.shape[1:]
        attention_mask, mlp_mask = layers.dropout_masks(keys_B, dropout, shape, shape)

        def finish(y: jax.Array, norm: layers.RMSNorm | None, mask: jax.Array | None) -> jax.Array:
            y = layers.drop(y if norm is None else norm(y), mask)
            return rules.constrain(y, "batch", "length", "embed_act")

        h = x_BxLxD if self.attention_pre_norm is None else self.attention_pre_norm(x_BxLxD)
        keys_values = self.attention.keys_values(h, rope)
        if cache is not None:
            keys_values = cache[0].write(keys_values, cache[1])
        y = self.attention(h, keys_values, sight, rope=rope)
        x_BxLxD = x_BxLxD + finish(y, self.attention_post_norm, attention_mask)
        h = x_BxLxD if self.mlp_pre_norm is None else self.mlp_pre_norm(x_BxLxD)
        x_BxLxD = x_BxLxD + finish(self.mlp(h), self.mlp_post_norm, mlp_mask)
        return x_BxLxD, keys_values


class Decoder(nnx.Module):
    """Embedding, blocks, final norm, and a head unless it is tied."""

    def __init__(self, config: DecoderConfig, *, keys: layers.Keys, stacked: bool = True):
        c = self.config = config
        sizes, axes = (c.vocab_size, c.d_model), layers.TABLE
        self.embedding = layers.weight(keys, sizes, axes, EMBEDDING_STD)
        self.layers = layers.stack_layers(lambda k: Block(c, keys=k), c.n_layers, keys, stacked)
        self.final_norm = layers.RMSNorm(c.d_model, c.norm_eps, c.norm_offset)
        head = None if c.tied_embedding else (sizes[::-1], axes[::-1], EMBEDDING_STD)
        self.head = layers.weight(keys, *head) if head else None

    def windows(self) -> np.ndarray:
        """How many tokens each layer sees, int32; EVERYTHING where a layer is global."""
        c = self.config
        every = c.global_every or c.n_layers + 1
        is_global = (np.arange(1, c.n_layers + 1) % every == 0) | (c.sliding_window == 0)
        return np.where(is_global, EVERYTHING, c.sliding_window).astype(np.int32)

    def _sights(
        self, queries: Tokens, keys: Tokens, implementation: str
    ) -> dict[int, AttentionMask]:
        """What a layer of each window sees."""
        only = not self.config.sliding_window
        return {
            window: AttentionMask.of(
                queries,
                keys,
                causal=True,
                window=None if only else window,
                implementation=implementation,
            )
            for window in set(self.windows().tolist())
        }

    def dropout_rates(self) -> np.ndarray:
        """Of each layer, float32; "linear" is LIMA's l / (L - 1) * rate (arXiv:2305.11206)."""
        c = self.config
        lowest = 0.0 if c.dropout_schedule == "linear" else c.dropout
        return np.linspace(lowest, c.dropout, c.n_layers, dtype=np.float32)

    def _embed(self, tokens_BxL: jax.Array) -> jax.Array:
        x_BxLxD = layers.embed(self.embedding[...], tokens_BxL, jnp.dtype(self.config.dtype))
        if self.config.scale_embedding:
            x_BxLxD = x_BxLxD * jnp.asarray(self.config.d_model**0.5, x_BxLxD.dtype)
        return x_BxLxD

    def hidden(self, batch: dict[str, jax.Array], dropout_key: jax.Array | None) -> jax.Array:
        """Final, normalised states of a batch's tokens: BxLxD."""
        tokens = Tokens(batch["segment_ids"], batch["positions"], batch.get("prefix_mask"))
        ropes = Ropes.at(tokens.positions_BxL, self.config)
        keys_B = layers.row_keys(dropout_key, batch, self.config.dropout)
        sights = self._sights(tokens, tokens, self.config.attention)
        near, far = sights[min(sights)], sights[max(sights)]  # Mostly one and the same.

        def call(block: Block, x_BxLxD: jax.Array, each: dict[str, Any]) -> jax.Array:
            local, keys_of_layer_B = each["window"] < EVERYTHING, layers.fold(keys_B, each["layer"])
            sight, rope, rate = near.where(local, far), ropes.of(local), each["dropout"]
            return block(x_BxLxD, sight, rope, keys_B=keys_of_layer_B, dropout=rate)[0]

        each = {"layer": np.arange(self.config.n_layers), "window": self.windows()}
        each["dropout"] = self.dropout_rates()
        x_BxLxD = self._embed(batch["tokens"])
        x_BxLxD = layers.run_layers(self.layers, x_BxLxD, call, each, self.config.remat)
        return self.final_norm(x_BxLxD)

    def cached(
        self,
        tokens_BxL: jax.Array,
        queries: Tokens,
        keys: Tokens,
        caches: tuple[list[KVPair], jax.Array] | None = None,
    ) -> tuple[jax.Array, list[KVPair]]:
        """States of new tokens and the keys and values to keep (unrolled layers only).

        `queries` says where the new tokens stand, `keys` what the cache's slots hold once they
        are in (without a cache: they themselves), `caches` has one a layer, and the slot (int32
        scalar) that the new tokens take in all; None starts from nothing.
        """
        windows = self.windows().tolist()
        ropes = Ropes.at(queries.positions_BxL, self.config)
        sights = self._sights(queries, keys, "plain")
        x_BxLxD, kept = self._embed(tokens_BxL), []
        for i, block in enumerate(self.layers):
            cache = None if caches is None else (caches[0][i], caches[1])
            rope = ropes.of_local if windows[i] < EVERYTHING else ropes.of_global
            x_BxLxD, keys_values = block(x_BxLxD, sights[windows[i]], rope, cache=cache)
            kept.append(keys_values)
        return self.final_norm(x_BxLxD), kept
