"""Seed-OSS: Llama with biases on queries, keys and values, and optional ones elsewhere."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import DecoderFamily
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import NUMBER


@register_family
class SeedOss(DecoderFamily):
    """The bias of the output projection has a field of its own."""

    model_type = "seed_oss"
    architecture = "SeedOssForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "attention_bias": True,
        "attention_out_bias": False,
        "head_dim": 128,
        "num_key_value_heads": 8,
    }
    nullable = DecoderFamily.nullable | {"head_dim"}
    ignored = {**DecoderFamily.ignored, "residual_dropout": NUMBER}

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return {
            "qkv_bias": fields.flag("attention_bias"),
            "output_bias": fields.flag("attention_out_bias"),
            "mlp_bias": fields.flag("mlp_bias"),
        }

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return {
            "attention_bias": config.qkv_bias,
            "attention_out_bias": config.output_bias,
            "mlp_bias": config.mlp_bias,
        }
