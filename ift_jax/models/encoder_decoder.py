"""The encoder-decoder: T5 (`t5_stack`) or T5Gemma (`gemma_stack`), by `EncoderDecoderConfig.block`.

Shape suffixes: B rows, L decoder positions, S encoder positions (in self-attention: keys), D model
width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ift_jax.config.schema import EncoderDecoderConfig
from ift_jax.models import layers
from ift_jax.models.attention.kv import KVPair, LayerCache
from ift_jax.models.attention.mask import Tokens
from ift_jax.models.decoder import EMBEDDING_STD
from ift_jax.models.dropout import dropout_row_keys, fold_keys
from ift_jax.models.embedding import EMBEDDING_AXES, embed
from ift_jax.models.gemma_stack import GemmaStack
from ift_jax.models.t5_stack import T5Stack

# The stacks' numbers, which are folded into the dropout keys.
ENCODER = 0
DECODER = 1


class EncoderDecoder(nnx.Module):
    """An embedding or two, the two stacks, and a head unless it is tied."""

    def __init__(self, config: EncoderDecoderConfig, *, keys: layers.Keys, stacked: bool = True):
        c = config
        self.config = config
        is_t5 = c.block == "t5"
        sizes = (c.vocab_size, c.d_model)
        std = 1.0 if is_t5 else EMBEDDING_STD
        self.embedding = layers.init_weight(keys, sizes, EMBEDDING_AXES, std)
        encoder_embedding = None
        if c.encoder_embedding:
            encoder_sizes = (c.vocab_size, c.encoder_width)
            encoder_embedding = layers.init_weight(keys, encoder_sizes, EMBEDDING_AXES, std)
        self.encoder_embedding = encoder_embedding
        image_end_embedding = None
        if c.image_end_id:
            image_end_embedding = nnx.Param(jnp.zeros((c.d_model,)), axes=("norm",))
        self.image_end_embedding = image_end_embedding
        make_stack = T5Stack if is_t5 else GemmaStack
        self.encoder = make_stack(c, decoder=False, keys=keys, stacked=stacked)
        self.decoder = make_stack(c, decoder=True, keys=keys, stacked=stacked)
        head = None
        if not c.tied_embedding:
            head_std = c.d_model**-0.5 if is_t5 else EMBEDDING_STD
            head = layers.init_weight(keys, sizes[::-1], EMBEDDING_AXES[::-1], head_std)
        self.head = head

    def _embed(self, tokens_BxL: jax.Array, *, decoder: bool) -> jax.Array:
        c = self.config
        table = self.embedding
        if not decoder and self.encoder_embedding is not None:
            table = self.encoder_embedding
        x_BxLxD = embed(table[...], tokens_BxL, jnp.dtype(c.dtype))
        if c.block == "t5":
            return x_BxLxD
        x_BxLxD = layers.multiply(x_BxLxD, x_BxLxD.shape[-1] ** 0.5)
        if self.image_end_embedding is None:
            return x_BxLxD
        image_end_D = self.image_end_embedding[...].astype(x_BxLxD.dtype)
        return jnp.where(tokens_BxL[..., None] == c.image_end_id, image_end_D, x_BxLxD)

    def encode(
        self, tokens_BxS: jax.Array, tokens: Tokens, keys_B: jax.Array | None = None
    ) -> jax.Array:
        """The encoder's final states: BxSxD."""
        x_BxSxD = self._embed(tokens_BxS, decoder=False)
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
            tokens_BxL: The decoder's inputs: the targets, shifted by one. Whatever stands at the
                first position of an example, `decoder_start_id` is read.
            tokens: What attention must know about them.
            encoded_BxSxD: What `encode` returned.
            encoded_tokens: What attention must know about the encoder's tokens.
            keys_B: The dropout keys of the rows; None: no dropout.
        """
        c = self.config
        if c.decoder_start_id:  # Batches hold 0 there.
            tokens_BxL = jnp.where(tokens.positions_BxL == 0, c.decoder_start_id, tokens_BxL)
        x_BxLxD = self.decoder(
            self._embed(tokens_BxL, decoder=True),
            tokens,
            encoded_BxSxD=encoded_BxSxD,
            encoded_tokens=encoded_tokens,
            keys_B=fold_keys(keys_B, DECODER),
        )
        return layers.multiply(x_BxLxD, c.output_scale)

    def project_cross_kv(self, encoded_BxSxD: jax.Array) -> list[KVPair]:
        """Each decoder layer's keys and values of the encoder's output (unrolled layers only)."""
        return self.decoder.project_memory(encoded_BxSxD)

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
        x_Bx1xD = self._embed(tokens_Bx1, decoder=True)
        return self.decoder.step(x_Bx1xD, queries, keys, caches, cross_kv, cross_keys)
