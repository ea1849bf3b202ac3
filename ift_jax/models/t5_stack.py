"""T5's stacks, versions 1.0 and 1.1 (Raffel et al. 2020, arXiv:1910.10683).

What is particular to T5: a relative position bias, which all layers of a stack share and which
cross-attention does not have; no scaling of the scores (the query's initialization does it
instead); no biases in projections; and dropout with one mask for all positions of a row. Version
1.0 has a ReLU MLP and a tied head whose input is scaled by d_model ** -0.5; version 1.1 has a gated
GELU and a head of its own. In UL2 (arXiv:2205.05131) the gate is a SiLU, and in umT5
(arXiv:2304.09151) each layer has a bias of its own.

Shape suffixes: B rows, L decoder positions, S encoder positions (in self-attention: keys), D model
width, H heads, W distances.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ift_jax.config.schema import EncoderDecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.attention import Attention
from ift_jax.models.attention.kv import KVPair, LayerCache
from ift_jax.models.attention.mask import AttentionMask, Tokens
from ift_jax.models.attention.relative_bias import relative_buckets
from ift_jax.models.dropout import apply_dropout, dropout_masks, fold_keys
from ift_jax.models.layer_stack import run_layers, stack_layers, traced_once
from ift_jax.sharding import rules

# The config's activations -> the function of the MLP, and whether it is that of a gate.
ACTIVATIONS = {
    "relu": ("relu", False),
    "gated_gelu": ("gelu_tanh", True),
    "gated_silu": ("silu", True),
}


def _make_relative_bias(config: EncoderDecoderConfig, keys: layers.Keys) -> Any:
    c = config
    return layers.init_weight(
        keys, (c.relative_buckets, c.n_heads), ("relative_buckets", None), c.d_model**-0.5
    )


def _look_up_bias(table: Any, bucket_W: jax.Array | np.ndarray) -> jax.Array:
    """The bias of each head at each distance, given the bucket of each: HxW, float32."""
    return table[...].astype(jnp.float32)[bucket_W].T


class Block(nnx.Module):
    """Self-attention, cross-attention in the decoder, and the MLP, each after a norm."""

    def __init__(self, config: EncoderDecoderConfig, *, cross: bool, keys: layers.Keys):
        c = config
        self.config = config

        def make_attention() -> Attention:
            return Attention(
                c.d_model,
                c.n_heads,
                c.n_heads,
                c.head_dim,
                scale=1.0,
                query_std=(c.d_model * c.head_dim) ** -0.5,
                keys=keys,
            )

        activation, gated = ACTIVATIONS[c.activation]
        self.relative_bias = _make_relative_bias(c, keys) if c.bias_per_layer else None
        self.attention_norm = layers.RMSNorm(c.d_model, c.norm_eps)
        self.attention = make_attention()
        self.cross_norm = layers.RMSNorm(c.d_model, c.norm_eps) if cross else None
        self.cross = make_attention() if cross else None
        self.mlp_norm = layers.RMSNorm(c.d_model, c.norm_eps)
        self.mlp = layers.MLP(c.d_model, c.d_ff, activation, gated=gated, keys=keys)

    def __call__(
        self,
        x_BxLxD: jax.Array,
        mask: AttentionMask,
        bucket_W: jax.Array | np.ndarray,
        *,
        encoded: jax.Array | KVPair | None = None,
        cross_mask: AttentionMask | None = None,
        keys_B: jax.Array | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, KVPair]:
        """Apply the block.

        Args:
            x_BxLxD: Hidden states.
            mask: What each position may attend to in its own stack, with the bias that its layers
                share.
            bucket_W: The bucket of each distance in the row, for a bias of the layer's own.
            encoded: In the decoder, the encoder's output, BxSxD, or the keys and values that
                cross-attention projects from it.
            cross_mask: In the decoder, what each position may attend to in the encoder's output.
            keys_B: The dropout keys of the rows; None: no dropout.
            cache: The keys and values of self-attention for earlier tokens, to which those of `x`
                are added.

        Returns:
            BxLxD, and the keys and values of self-attention: those of `x`, or the cache's.
        """
        c = self.config
        n_keys = mask.keys.positions_BxL.shape[1]
        n_encoded = 0 if cross_mask is None else cross_mask.keys.positions_BxL.shape[1]
        residual = (1, c.d_model)
        (
            attention_dropout,
            attention_out_dropout,
            cross_dropout,
            cross_out_dropout,
            mlp_dropout,
            mlp_out_dropout,
        ) = dropout_masks(
            keys_B,
            c.dropout,
            (c.n_heads, n_keys),
            residual,
            (c.n_heads, n_encoded),
            residual,
            (1, c.d_ff),
            residual,
        )

        if self.relative_bias is not None:
            mask = mask.with_bias(_look_up_bias(self.relative_bias, bucket_W))
        h = self.attention_norm(x_BxLxD)
        kv = self.attention.project_kv(h)
        if cache is not None:
            kv = cache.write(kv)
        y = self.attention(h, kv, mask, dropout_BxHxS=attention_dropout)
        x_BxLxD = _add(x_BxLxD, y, attention_out_dropout)

        if self.cross is not None:
            assert self.cross_norm is not None and encoded is not None and cross_mask is not None
            cross_kv = encoded if isinstance(encoded, KVPair) else self.cross.project_kv(encoded)
            h = self.cross_norm(x_BxLxD)
            y = self.cross(h, cross_kv, cross_mask, dropout_BxHxS=cross_dropout)
            x_BxLxD = _add(x_BxLxD, y, cross_out_dropout)

        y = self.mlp(self.mlp_norm(x_BxLxD), mlp_dropout)
        return _add(x_BxLxD, y, mlp_out_dropout), kv


def _add(x_BxLxD: jax.Array, y_BxLxD: jax.Array, dropout: jax.Array | None) -> jax.Array:
    """Add the output of attention or MLP, with dropout, to the residual."""
    x_BxLxD = x_BxLxD + apply_dropout(y_BxLxD, dropout)
    return rules.constrain(x_BxLxD, "batch", "length", "embed_act")


class T5Stack(nnx.Module):
    """The encoder or the decoder: layers, their relative position bias, and the final norm."""

    def __init__(
        self, config: EncoderDecoderConfig, *, decoder: bool, keys: layers.Keys, stacked: bool
    ):
        c = config
        self.config = config
        self.decoder = decoder
        self.n_layers = c.n_decoder_layers if decoder else c.n_encoder_layers
        self.relative_bias = None if c.bias_per_layer else _make_relative_bias(c, keys)
        self.layers = stack_layers(
            lambda layer_keys, _: Block(c, cross=decoder, keys=layer_keys),
            ["block"] * self.n_layers,
            keys,
            stacked,
        )
        self.final_norm = layers.RMSNorm(c.d_model, c.norm_eps)

    def buckets(self, first: int, last: int) -> np.ndarray:
        """The bucket of each of the distances key - query = first .. last."""
        return relative_buckets(
            np.arange(first, last + 1),
            bidirectional=not self.decoder,
            buckets=self.config.relative_buckets,
            max_distance=self.config.relative_max_distance,
        )

    def with_shared_bias(
        self, mask: AttentionMask, bucket_W: jax.Array | np.ndarray
    ) -> AttentionMask:
        """The mask of self-attention with the bias that all layers share, if they do."""
        if self.relative_bias is None:
            return mask
        return mask.with_bias(_look_up_bias(self.relative_bias, bucket_W))

    def __call__(
        self,
        x_BxLxD: jax.Array,
        tokens: Tokens,
        *,
        encoded_BxSxD: jax.Array | None = None,
        encoded_tokens: Tokens | None = None,
        keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Compute the final states of a batch's rows: BxLxD.

        Args:
            x_BxLxD: Embedded tokens.
            tokens: What attention must know about them.
            encoded_BxSxD: For the decoder, the encoder's output.
            encoded_tokens: For the decoder, what attention must know about the encoder's tokens.
            keys_B: The dropout keys of the rows; None: no dropout.
        """
        c = self.config
        create_mask = functools.partial(AttentionMask.create, implementation=c.attention)
        # By index in the row, not by position in the segment: the tokens of a segment stand side
        # by side, so inside a segment the distance is the same, and one bias serves all rows.
        length = x_BxLxD.shape[1]
        bucket_W = self.buckets(1 - length, length - 1)
        mask = create_mask(tokens, tokens, causal=self.decoder, adds_scores=True)
        mask = self.with_shared_bias(mask, bucket_W)
        cross_mask = None
        if encoded_tokens is not None:
            cross_mask = create_mask(tokens, encoded_tokens, causal=False)

        def call(block: Block, x_BxLxD: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
            layer_keys_B = fold_keys(keys_B, layer)
            y_BxLxD, _ = block(
                x_BxLxD,
                mask,
                bucket_W,
                encoded=encoded_BxSxD,
                cross_mask=cross_mask,
                keys_B=layer_keys_B,
            )
            return y_BxLxD, None

        # The first and the last dropout take a number that no layer has.
        outer_keys_B = fold_keys(keys_B, self.n_layers)
        residual = (1, c.d_model)
        first_dropout, last_dropout = dropout_masks(outer_keys_B, c.dropout, residual, residual)
        x_BxLxD = apply_dropout(x_BxLxD, first_dropout)
        x_BxLxD, _ = run_layers(self.layers, x_BxLxD, call, np.arange(self.n_layers), c.remat)
        return apply_dropout(self.final_norm(x_BxLxD), last_dropout)

    def project_memory(self, encoded_BxSxD: jax.Array) -> list[KVPair]:
        """Each layer's keys and values of the encoder's output (unrolled layers only)."""
        return [block.cross.project_kv(encoded_BxSxD) for block in self.layers]

    def step(
        self,
        x_Bx1xD: jax.Array,
        queries: Tokens,
        keys: Tokens,
        caches: list[LayerCache],
        memory: list[KVPair],
        memory_tokens: Tokens,
    ) -> tuple[jax.Array, list[KVPair]]:
        """Compute the final state of one new token per row; `EncoderDecoder` has the arguments."""
        n_slots = keys.positions_BxL.shape[1]
        bucket_W = self.buckets(1 - n_slots, n_slots - 1)
        first_distance = n_slots - 1 - caches[0].slot
        bucket_S = jax.lax.dynamic_slice_in_dim(jnp.asarray(bucket_W), first_distance, n_slots)
        mask = AttentionMask.create(queries, keys, causal=True, adds_scores=True)
        mask = self.with_shared_bias(mask, bucket_S)
        cross_mask = AttentionMask.create(queries, memory_tokens, causal=False)
        run_block = traced_once(
            lambda block, x, mask, bucket, cache, encoded, cross_mask: block(
                x, mask, bucket, encoded=encoded, cross_mask=cross_mask, cache=cache
            )
        )
        new_kv = []
        for block, cache, encoded in zip(self.layers, caches, memory, strict=True):
            x_Bx1xD, kv = run_block(block, x_Bx1xD, mask, bucket_S, cache, encoded, cross_mask)
            new_kv.append(kv)
        return self.final_norm(x_Bx1xD), new_kv
