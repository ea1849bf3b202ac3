"""Llama 2 and 3, and models that share their architecture: SmolLM2, TinyLlama, ..."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family


@register_family
class Llama(DecoderFamily):
    """The family that the others are described against; biases are optional."""

    model_type = "llama"
    architecture = "LlamaForCausalLM"
    export_rank = 0
    nullable = DecoderFamily.nullable | {"head_dim"}
    heads_divide_width = True
    layer_names = ATTENTION_AND_MLP_NAMES | PRE_NORM_NAMES

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return read_attention_bias(fields) | {"mlp_bias": fields.flag("mlp_bias")}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return write_attention_bias(config) | {"mlp_bias": config.mlp_bias}
