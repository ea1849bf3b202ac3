"""GLM-4 of 2024: Llama that rotates half of each head, with fused gate and up projections."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, PRE_NORM_NAMES, DecoderFamily
from ift_jax.interop.families.phi3 import FUSED_MLP_NAMES
from ift_jax.interop.model_family import register_family


@register_family
class Glm(DecoderFamily):
    """RoPE is over neighboring dimensions."""

    model_type = "glm"
    architecture = "GlmForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "attention_bias": True,
        "head_dim": 128,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1.5625e-07,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads", "partial_rotary_factor"}
    fixed = {"rope_interleaved": True}
    layer_names = ATTENTION_AND_MLP_NAMES | PRE_NORM_NAMES | FUSED_MLP_NAMES
    rotated_part = 0.5

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases: the output projection never has one."""
        return {"qkv_bias": fields.flag("attention_bias")}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return {"attention_bias": config.qkv_bias}
