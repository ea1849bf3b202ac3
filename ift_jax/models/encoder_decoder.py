"""T5's encoder-decoder, versions 1.0 and 1.1 (Raffel et al. 2020, arXiv:1910.10683).

What is particular to T5: a relative position bias that all layers of a stack share and that
cross-attention has not, no scaling of the scores (the query's initialisation holds it), no
biases, dropout that is one mask for all positions of a row. Version 1.0 has a ReLU MLP and a
tied head whose input is scaled by d_model ** -0.5, version 1.1 a gated GELU and its own head.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ift_jax.config.schema import EncoderDecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.attention import Attention
from ift_jax.models.attention.mask import AttentionMask, Tokens
from ift_jax.models.attention.reference import KVPair
from ift_jax.sharding import rules

ENCODER, DECODER = 0, 1  # Which stack, for dropout's keys.


def relative_buckets(
    distance: np.ndarray, *, bidirectional: bool, buckets: int, max_distance: int
) -> np.ndarray:
    """T5's bucket of each distance (key position - query position), int32.

    Half of the buckets are single distances, the rest grow logarithmically up to
    `max_distance`; both directions share them in the encoder, in the decoder only the past has
    any.
    """
    if bidirectional:
        buckets //= 2
    offset = np.where(distance > 0, buckets, 0) if bidirectional else 0
    distance = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    exact = buckets // 2
    # The small term keeps distances at the edge of a bucket from falling into the one below.
    octaves = np.log(np.maximum(distance, 1) / exact + 1e-7) / np.log(max_distance / exact)
    far = np.minimum(exact + (octaves * (buckets - exact)).astype(np.int32), buckets - 1)
    return (offset + np.where(distance < exact, distance, far)).astype(np.int32)


class Block(nnx.Module):
    """Self-attention, cross-attention in the decoder, and the MLP, each after a norm."""

    def __init__(self, config: EncoderDecoderConfig, *, cross: bool, keys: layers.Keys):
        c = self.config = config

        def make_attention() -> Attention:
            std = (c.d_model * c.head_dim) ** -0.5
            heads = (c.n_heads, c.n_heads, c.head_dim)
            return Attention(c.d_model, *heads, scale=1.0, query_std=std, keys=keys)

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
        sight: AttentionMask,
        *,
        encoded: tuple[jax.Array | KVPair, AttentionMask] | None = None,
        keys_B: jax.Array | None = None,
        cache: tuple[KVPair, jax.Array] | None = None,
    ) -> tuple[jax.Array, KVPair]:
        """Returns the layer's output and the keys and values of its self-attention.

        In the decoder `encoded` is the encoder's output, or the keys and values that
        cross-attention has of it, and what of it each position sees; `cache` is the layer's and
        the slot that the new tokens take in it.
        """
        c, out = self.config, (1, self.config.d_model)
        n_keys = sight.keys.positions_BxL.shape[1]
        n_cross = 0 if encoded is None else encoded[1].keys.positions_BxL.shape[1]
        shapes = ((c.n_heads, n_keys), out, (c.n_heads, n_cross), out, (1, c.d_ff), out)
        self_weights, self_out, cross_weights, cross_out, mlp_hidden, mlp_out = (
            layers.dropout_masks(keys_B, c.dropout, *shapes)
        )

        def add(x: jax.Array, y: jax.Array, mask: jax.Array | None) -> jax.Array:
            return rules.constrain(x + layers.drop(y, mask), "batch", "length", "embed_act")

        h = self.attention_norm(x_BxLxD)
        keys_values = self.attention.keys_values(h)
        if cache is not None:
            keys_values = cache[0].write(keys_values, cache[1])
        y = self.attention(h, keys_values, sight, dropout_BxHxS=self_weights)
        x_BxLxD = add(x_BxLxD, y, self_out)
        if self.cross is not None:
            assert self.cross_norm is not None and encoded is not None
            source, sees = encoded
            kept = source if isinstance(source, KVPair) else self.cross.keys_values(source)
            y = self.cross(self.cross_norm(x_BxLxD), kept, sees, dropout_BxHxS=cross_weights)
            x_BxLxD = add(x_BxLxD, y, cross_out)
        y = self.mlp(self.mlp_norm(x_BxLxD), mlp_hidden)
        return add(x_BxLxD, y, mlp_out), keys_values


class Stack(nnx.Module):
    """The encoder or the decoder: layers, their relative bias, and the final norm."""

    def __init__(
        self, config: EncoderDecoderConfig, *, decoder: bool, keys: layers.Keys, stacked: bool
    ):
        c = self.config = config
        self.decoder = decoder
        self.n_layers = c.n_decoder_layers if decoder else c.n_encoder_layers
        sizes, axes = (c.relative_buckets, c.n_heads), ("relative_buckets", None)
        self.relative_bias = layers.weight(keys, sizes, axes, c.d_model**-0.5)
        make = lambda k: Block(c, cross=decoder, keys=k)  # noqa: E731
        self.layers = layers.stack_layers(make, self.n_layers, keys, stacked)
        self.final_norm = layers.RMSNorm(c.d_model, c.norm_eps)

    def bias_of_distances(self, first: int, last: int) -> jax.Array:
        """Hx(last - first + 1): the bias at key - query = first .. last, float32."""
        c = self.config
        of_distance = relative_buckets(
            np.arange(first, last + 1),
            bidirectional=not self.decoder,
            buckets=c.relative_buckets,
            max_distance=c.relative_max_distance,
        )
        return self.relative_bias[...].astype(jnp.float32)[of_distance].T

    def __call__(
        self,
        x_BxLxD: jax.Array,
        tokens: Tokens,
        *,
        encoded: tuple[jax.Array, Tokens] | None = None,
        keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Final states of a batch's rows: BxLxD; a decoder is given the encoder's (BxSxD)."""
        look = functools.partial(AttentionMask.of, tokens, implementation=self.config.attention)
        # By place in the row, not by position in the segment: inside a segment, whose tokens
        # stand side by side, the distance is the same, and one bias serves all rows.
        bias_HxW = self.bias_of_distances(1 - x_BxLxD.shape[1], x_BxLxD.shape[1] - 1)
        sight = look(tokens, causal=self.decoder, bias_HxW=bias_HxW)
        cross = encoded and (encoded[0], look(encoded[1], causal=False))

        def call(block: Block, x_BxLxD: jax.Array, layer: jax.Array) -> jax.Array:
            of_layer_B = layers.fold(keys_B, layer)
            return block(x_BxLxD, sight, encoded=cross, keys_B=of_layer_B)[0]

        c, shape = self.config, (1, self.config.d_model)
        around_B = layers.fold(keys_B, self.n_layers)  # A number that no layer has.
        first_mask, last_mask = layers.dropout_masks(around_B, c.dropout, shape, shape)
        x_BxLxD, numbers = layers.drop(x_BxLxD, first_mask), np.arange(self.n_layers)
        x_BxLxD = layers.run_layers(self.layers, x_BxLxD, call, numbers, c.remat)
        return layers.drop(self.final_norm(x_BxLxD), last_mask)


class EncoderDecoder(nnx.Module):
    """A shared embedding, the two stacks, and a head unless it is tied."""

    def __init__(self, config: EncoderDecoderConfig, *, keys: layers.Keys, stacked: bool = True):
        c = self.config = config
        sizes, axes = (c.vocab_size, c.d_model), layers.TABLE
        self.embedding = layers.weight(keys, sizes, axes, 1.0)
        self.encoder = Stack(c, decoder=False, keys=keys, stacked=stacked)
        self.decoder = Stack(c, decoder=True, keys=keys, stacked=stacked)
        head = None if c.tied_embedding else (sizes[::-1], axes[::-1], c.d_model**-0.5)
        self.head = layers.weight(keys, *head) if head else None

    def _embed(self, tokens_BxL: jax.Array) -> jax.Array:
        return layers.embed(self.embedding[...], tokens_BxL, jnp.dtype(self.config.dtype))

    def encode(
        self, tokens_BxS: jax.Array, tokens: Tokens, keys_B: jax.Array | None = None
    ) -> jax.Array:
        """The encoder's final states: BxSxD."""
        return self.encoder(self._embed(tokens_BxS), tokens, keys_B=layers.fold(keys_B, ENCODER))

    def hidden(self, batch: dict[str, jax.Array], dropout_key: jax.Array | None) -> jax.Array:
        """Final states of the decoder's tokens, ready for the head: BxLxD."""
        c = self.config
        keys_B = layers.row_keys(dropout_key, batch, c.dropout)
        sources = Tokens(batch["encoder_segment_ids"], batch["encoder_positions"])
        targets = Tokens(batch["decoder_segment_ids"], batch["decoder_positions"])
        encoded = (self.encode(batch["encoder_tokens"], sources, keys_B), sources)
        x_BxLxD = self._embed(batch["decoder_tokens"])
        of_stack_B = layers.fold(keys_B, DECODER)
        x_BxLxD = self.decoder(x_BxLxD, targets, encoded=encoded, keys_B=of_stack_B)
        return x_BxLxD * c.d_model**-0.5 if c.tied_embedding else x_BxLxD

    def cross_caches(self, encoded_BxSxD: jax.Array) -> list[KVPair]:
        """Each decoder layer's keys and values of the encoder's output (unrolled layers only)."""
        return [block.cross.keys_values(encoded_BxSxD) for block in self.decoder.layers]

    def cached(
        self,
        tokens_Bx1: jax.Array,
        queries: Tokens,
        keys: Tokens,
        caches: tuple[list[KVPair], jax.Array],
        cross: tuple[list[KVPair], Tokens],
    ) -> tuple[jax.Array, list[KVPair]]:
        """The state of one new decoder token a row, and the caches (unrolled layers only).

        As `Decoder.cached`, with the caches of cross-attention and what their slots hold. The
        slots of self-attention are positions: token t of every row stands in slot t.
        """
        slot, S = caches[1], keys.positions_BxL.shape[1]
        by_distance_HxW = self.decoder.bias_of_distances(1 - S, S - 1)
        bias_HxS = jax.lax.dynamic_slice_in_dim(by_distance_HxW, S - 1 - slot, S, axis=1)
        sight = AttentionMask.of(queries, keys, causal=True, bias_HxW=bias_HxS)
        across = AttentionMask.of(queries, cross[1], causal=False)
        x_Bx1xD, kept = self._embed(tokens_Bx1), []
        for block, of_self, of_cross in zip(self.decoder.layers, caches[0], cross[0], strict=True):
            x_Bx1xD, keys_values = block(
                x_Bx1xD, sight, encoded=(of_cross, across), cache=(of_self, slot)
            )
            kept.append(keys_values)
        return self.decoder.final_norm(x_Bx1xD), kept
