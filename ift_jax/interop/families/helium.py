"""Helium: Llama with RoPE over neighboring dimensions, and no bias in the output projection."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import DecoderFamily
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import whole


@register_family
class Helium(DecoderFamily):
    """Its heads together are as wide as the model."""

    model_type = "helium"
    architecture = "HeliumForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "head_dim": 128,
        "num_key_value_heads": 20,
        "rms_norm_eps": 1e-8,
        "rope_theta": 100_000.0,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"}
    fixed = {"rope_interleaved": True}

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases; the output projection must be square, as it is in transformers."""
        n_heads = fields.get("num_attention_heads", whole(1))
        d_model = fields.get("hidden_size", whole(1))
        if n_heads * head_dim != d_model:
            raise fields.refusal("head_dim", head_dim, f"{d_model} / {n_heads} heads")
        return {"qkv_bias": fields.flag("attention_bias"), "mlp_bias": fields.flag("mlp_bias")}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
