"""T5's encoder-decoder, versions 1.0 and 1.1 (Raffel et al. 2020, arXiv:1910.10683).

What is particular to T5: a relative position bias, which all layers of a stack share and which
cross-attention does not have; no scaling of the scores (the query's initialization does it
instead); no biases in projections; and dropout with one mask for all positions of a row. Version
1.0 has a ReLU MLP and a tied head whose input is scaled by d_model ** -0.5; version 1.1 has a gated
GELU and a head of its own.

Shape suffixes: B rows, L decoder positions, S encoder positions (in self-attention: keys), D model
width, H heads, W distances.
"""

import functools

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
from ift_jax.models.dropout import apply_dropout, dropout_masks, dropout_row_keys, fold_keys
from ift_jax.models.embedding import EMBEDDING_AXES, embed
from ift_jax.models.layer_stack import run_layers, stack_layers
from ift_jax.sharding import rules

# The stacks' numbers, which are folded into the dropout keys.
ENCODER = 0
DECODER = 1


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

        gated = c.activation == "gated_gelu"
        self.attention_norm = layers.RMSNorm(c.d_model, c.norm_eps)
        self.attention = make_attention()
        self.cross_norm = layers.RMSNorm(c.d_model, c.norm_eps) if cross else None
        self.cross = make_attention() if cross else None
        self.mlp_norm = layers.RMSNorm(c.d_model, c.norm_eps)
        self.mlp = layers.MLP(
            c.d_model, c.d_ff, "gelu_tanh" if gated else "relu", gated=gated, keys=keys
        )

    def __call__(
        self,
        x_BxLxD: jax.Array,
        mask: AttentionMask,
        *,
        encoded: jax.Array | KVPair | None = None,
        cross_mask: AttentionMask | None = None,
        keys_B: jax.Array | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[jax.Array, KVPair]:
        """Apply the block.

        Args:
            x_BxLxD: Hidden states.
            mask: What each position may attend to in its own stack.
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


class Stack(nnx.Module):
    """The encoder or the decoder: layers, their relative position bias, and the final norm."""

    def __init__(
        self, config: EncoderDecoderConfig, *, decoder: bool, keys: layers.Keys, stacked: bool
    ):
        c = config
        self.config = config
        self.decoder = decoder
        self.n_layers = c.n_decoder_layers if decoder else c.n_encoder_layers
        self.relative_bias = layers.init_weight(
            keys, (c.relative_buckets, c.n_heads), ("relative_buckets", None), c.d_model**-0.5
        )
        self.layers = stack_layers(
            lambda layer_keys: Block(c, cross=decoder, keys=layer_keys),
            self.n_layers,
            keys,
            stacked,
        )
        self.final_norm = layers.RMSNorm(c.d_model, c.norm_eps)

    def bias_by_distance(self, first: int, last: int) -> jax.Array:
        """The bias at the distances key - query = first .. last: Hx(last - first + 1), float32."""
        c = self.config
        bucket_W = relative_buckets(
            np.arange(first, last + 1),
            bidirectional=not self.decoder,
            buckets=c.relative_buckets,
            max_distance=c.relative_max_distance,
        )
        return self.relative_bias[...].astype(jnp.float32)[bucket_W].T

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
        bias_HxW = self.bias_by_distance(1 - length, length - 1)
        mask = create_mask(tokens, tokens, causal=self.decoder, bias_HxW=bias_HxW)
        cross_mask = None
        if encoded_tokens is not None:
            cross_mask = create_mask(tokens, encoded_tokens, causal=False)

        def call(block: Block, x_BxLxD: jax.Array, layer: jax.Array) -> jax.Array:
            layer_keys_B = fold_keys(keys_B, layer)
            y_BxLxD, _ = block(
                x_BxLxD, mask, encoded=encoded_BxSxD, cross_mask=cross_mask, keys_B=layer_keys_B
            )
            return y_BxLxD

        # The first and the last dropout take a number that no layer has.
        outer_keys_B = fold_keys(keys_B, self.n_layers)
        residual = (1, c.d_model)
        first_dropout, last_dropout = dropout_masks(outer_keys_B, c.dropout, residual, residual)
        x_BxLxD = apply_dropout(x_BxLxD, first_dropout)
        x_BxLxD = run_layers(self.layers, x_BxLxD, call, np.arange(self.n_layers), c.remat)
        return apply_dropout(self.final_norm(x_BxLxD), last_dropout)


class EncoderDecoder(nnx.Module):
    """A shared embedding, the two stacks, and a head unless it is tied."""

    def __init__(self, config: EncoderDecoderConfig, *, keys: layers.Keys, stacked: bool = True):
        c = config
        self.config = config
        sizes = (c.vocab_size, c.d_model)
        self.embedding = layers.init_weight(keys, sizes, EMBEDDING_AXES, 1.0)
        self.encoder = Stack(c, decoder=False, keys=keys, stacked=stacked)
        self.decoder = Stack(c, decoder=True, keys=keys, stacked=stacked)
        head = None
        if not c.tied_embedding:
            head = layers.init_weight(keys, sizes[::-1], EMBEDDING_AXES[::-1], c.d_model**-0.5)
        self.head = head

    def _embed(self, tokens_BxL: jax.Array) -> jax.Array:
        return embed(self.embedding[...], tokens_BxL, jnp.dtype(self.config.dtype))

    def encode(
        self, tokens_BxS: jax.Array, tokens: Tokens, keys_B: jax.Array | None = None
    ) -> jax.Array:
        """The encoder's final states: BxSxD."""
        x_BxSxD = self._embed(tokens_BxS)
        return self.encoder(x_BxSxD, tokens, keys_B=fold_keys(keys_B, ENCODER))

    def hidden(self, batch: dict[str, jax.Array], dropout_key: jax.Array | None) -> jax.Array:
        """Final states of the decoder's tokens, ready for the head: BxLxD.

        `Model.hidden` has the details.
        """
        keys_B = dropout_row_keys(dropout_key, batch, self.config.dropout)
        encoder_tokens = Tokens(batch["encoder_segment_ids"], batch["encoder_positions"])
        decoder_tokens = Tokens(batch["decoder_segment_ids"], batch["decoder_positions"])
        encoded_BxSxD = self.encode(batch["encoder_tokens"], encoder_tokens, keys_B)
        return self.decode(
            batch["decoder_tokens"], decoder_tokens, encoded_BxSxD, encoder_tokens, keys_B
        )

    def decode(
        self,
        tokens_BxL: jax.Array,
        tokens: Tokens,
        encoded_BxSxD: jax.Array,
        encoded_tokens: Tokens,
        keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Final states of the decoder's tokens, ready for the head: BxLxD.

        Args:
            tokens_BxL: The decoder's inputs: the targets, shifted by one.
            tokens: What attention must know about them.
            encoded_BxSxD: What `encode` returned.
            encoded_tokens: What attention must know about the encoder's tokens.
            keys_B: The dropout keys of the rows; None: no dropout.
        """
        c = self.config
        x_BxLxD = self.decoder(
            self._embed(tokens_BxL),
            tokens,
            encoded_BxSxD=encoded_BxSxD,
            encoded_tokens=encoded_tokens,
            keys_B=fold_keys(keys_B, DECODER),
        )
        return x_BxLxD * c.d_model**-0.5 if c.tied_embedding else x_BxLxD

    def project_cross_kv(self, encoded_BxSxD: jax.Array) -> list[KVPair]:
        """Each decoder layer's keys and values of the encoder's output (unrolled layers only)."""
        return [block.cross.project_kv(encoded_BxSxD) for block in self.decoder.layers]

    def hidden_with_cache(
        self,
        tokens_Bx1: jax.Array,
        queries: Tokens,
        keys: Tokens,
        caches: list[LayerCache],
        cross_kv: list[KVPair],
        cross_keys: Tokens,
    ) -> tuple[jax.Array, list[KVPair]]:
        """Compute the final state of one new decoder token per row (unrolled layers only).

        The slots of self-attention are positions: token t of every row stands in slot t.

        Args:
            tokens_Bx1: The new tokens.
            queries: Where the new tokens stand.
            keys: What the slots of self-attention hold once the new tokens are in.
            caches: The cache of self-attention of each layer, all with the same slot.
            cross_kv: What `project_cross_kv` returned.
            cross_keys: What its slots hold.

        Returns:
            Bx1xD, and each layer's keys and values of self-attention, the new ones among them.
        """
        n_slots = keys.positions_BxL.shape[1]
        bias_HxW = self.decoder.bias_by_distance(1 - n_slots, n_slots - 1)
        first_distance = n_slots - 1 - caches[0].slot
        bias_HxS = jax.lax.dynamic_slice_in_dim(bias_HxW, first_distance, n_slots, axis=1)
        mask = AttentionMask.create(queries, keys, causal=True, bias_HxW=bias_HxS)
        cross_mask = AttentionMask.create(queries, cross_keys, causal=False)
        x_Bx1xD = self._embed(tokens_Bx1)
        new_kv = []
        for block, cache, encoded in zip(self.decoder.layers, caches, cross_kv, strict=True):
            x_Bx1xD, kv = block(x_Bx1xD, mask, encoded=encoded, cross_mask=cross_mask, cache=cache)
            new_kv.append(kv)
        return self.decoder.final_norm(x_Bx1xD), new_kv
