"""Qwen3 (dense): Qwen2 with a norm on each head's queries and keys; biases are optional."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    QK_NORM_NAMES,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.families.qwen2 import Qwen2
from ift_jax.interop.model_family import register_family


@register_family
class Qwen3(Qwen2):
    """Windows are those of Qwen2."""

    model_type = "qwen3"
    architecture = "Qwen3ForCausalLM"
    defaults = Qwen2.defaults | {"head_dim": 128}
    fixed = {"qk_norm": "head"}
    layer_names = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | PRE_NORM_NAMES

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return read_attention_bias(fields)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the windows and the biases."""
        return super().write_own_fields(config) | write_attention_bias(config)
