"""Gemma: Llama with norms that scale by 1 + weight, and scaled embeddings."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ACTIVATIONS,
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import ANYTHING, one_of


@register_family
class Gemma(DecoderFamily):
    """No windows and no soft caps, which came with Gemma 2."""

    model_type = "gemma"
    architecture = "GemmaForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh",
        "num_key_value_heads": 16,
        "tie_word_embeddings": True,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"} | {"use_bidirectional_attention"}
    # Releases have it beside hidden_act, which alone is used.
    ignored = {**DecoderFamily.ignored, "hidden_activation": ANYTHING}
    fixed = {"norm_offset": 1.0, "scale_embedding": True}
    layer_names = ATTENTION_AND_MLP_NAMES | PRE_NORM_NAMES
    heads_divide_width = True

    def read_activation(self, fields: ConfigFields) -> str:
        """Return the activation: releases write "gelu" where they mean its tanh approximation."""
        ours = ACTIVATIONS[fields.get(self.activation_field, one_of(ACTIVATIONS))]
        return "gelu_tanh" if ours == "gelu" else ours

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        fields.expect("use_bidirectional_attention", False)
        return read_attention_bias(fields)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return write_attention_bias(config)
