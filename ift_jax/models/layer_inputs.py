"""Embeddings that each layer reads for itself, beside the hidden states (Gemma 4 E2B and E4B).

A second table, wider than the first one, holds a vector for each token and layer. A layer's gate
decides by the hidden states how much of it is added to them.

Shape suffixes: B rows, L positions, D model width, V vocabulary, N layers, P width of a layer's
vector, Q = N * P.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ift_jax.config.schema import DecoderConfig
from ift_jax.models import layers
from ift_jax.sharding import rules

# A device holds some columns of the table and all rows, so that it can look up the tokens of all
# devices in its columns. The table is then neither gathered nor is its gradient ever whole.
TABLE_AXES = ("layer_vocab", "layer_embed")
TABLE_STD = 0.02


class LayerInputs(nnx.Module):
    """The vectors of all layers, of the tokens and of their embeddings."""

    def __init__(self, config: DecoderConfig, *, keys: layers.Keys):
        c = config
        self.config = config
        Q = c.n_layers * c.layer_input_dim
        self.table = layers.init_weight(keys, (c.n_layer_input_rows, Q), TABLE_AXES, TABLE_STD)
        self.projection = layers.Linear(c.d_model, Q, ("embed", "layer_inputs"), keys=keys)
        self.norm = layers.RMSNorm(c.layer_input_dim, c.norm_eps, c.norm_offset)

    def __call__(self, tokens_BxL: jax.Array, x_BxLxD: jax.Array) -> jax.Array:
        """The sum of a token's own vectors and those of its embedding, by sqrt(2): NxBxLxP.

        Args:
            tokens_BxL: Token ids.
            x_BxLxD: Their embeddings, as the first layer gets them.
        """
        c = self.config
        shape = (*tokens_BxL.shape, c.n_layers, c.layer_input_dim)
        looked_up_BxLxQ = self._look_up(tokens_BxL, x_BxLxD.dtype)
        of_token_BxLxQ = layers.multiply(looked_up_BxLxQ, c.layer_input_dim**0.5)
        projected_BxLxQ = layers.multiply(self.projection(x_BxLxD), c.d_model**-0.5)
        of_embedding_BxLxNxP = self.norm(projected_BxLxQ.reshape(shape))
        sum_BxLxNxP = of_embedding_BxLxNxP + of_token_BxLxQ.reshape(shape)
        both_BxLxNxP = layers.multiply(sum_BxLxNxP, 2.0**-0.5)
        both_NxBxLxP = jnp.moveaxis(both_BxLxNxP, 2, 0)
        return rules.constrain(both_NxBxLxP, None, "batch", "length", None)

    def _look_up(self, tokens_BxL: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """The rows of the table: BxLxQ."""
        tokens_BxL = rules.constrain(tokens_BxL, "batch_of_columns", "length")
        of_token_BxLxQ = jnp.take(self.table[...], tokens_BxL, axis=0, mode="clip").astype(dtype)
        of_token_BxLxQ = rules.constrain(
            of_token_BxLxQ, "batch_of_columns", "length", "layer_embed"
        )
        return rules.constrain(of_token_BxLxQ, "batch", "length", None)


class LayerInputGate(nnx.Module):
    """What a layer adds to the hidden states from its own vectors."""

    def __init__(self, config: DecoderConfig, *, keys: layers.Keys):
        c = config
        self.activation = c.activation
        self.gate = layers.Linear(
            c.d_model, c.layer_input_dim, ("embed", "layer_inputs"), keys=keys
        )
        self.out = layers.Linear(c.layer_input_dim, c.d_model, ("layer_inputs", "embed"), keys=keys)
        self.norm = layers.make_norm(c.norm, c.d_model, c.norm_eps, c.norm_offset)

    def __call__(self, x_BxLxD: jax.Array, input_BxLxP: jax.Array) -> jax.Array:
        """The states with the gated vectors added: BxLxD."""
        gate_BxLxP = layers.ACTIVATIONS[self.activation](self.gate(x_BxLxD))
        added_BxLxD = self.norm(self.out(gate_BxLxP * input_BxLxP))
        return x_BxLxD + rules.constrain(added_BxLxD, "batch", "length", "embed_act")
