"""OLMo 2: norms after attention and MLP, and over all queries and all keys of a token."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    QK_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family

POST_NORM_NAMES = {
    "attention_post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


@register_family
class Olmo2(DecoderFamily):
    """Biases are optional."""

    model_type = "olmo2"
    architecture = "Olmo2ForCausalLM"
    defaults = DecoderFamily.defaults | {"rms_norm_eps": 1e-5}
    fixed = {"norm_placement": "post", "qk_norm": "full"}
    layer_names = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | POST_NORM_NAMES

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return read_attention_bias(fields)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return write_attention_bias(config)
