"""ERNIE 4.5 (dense): Llama with RoPE over neighboring dimensions, and one switch for all biases."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import DecoderFamily
from ift_jax.interop.model_family import register_family


@register_family
class Ernie45(DecoderFamily):
    """Biases are everywhere or nowhere."""

    model_type = "ernie4_5"
    architecture = "Ernie4_5ForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "head_dim": 128,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": True,
    }
    nullable = DecoderFamily.nullable | {"head_dim", "use_bias"}
    fixed = {"rope_interleaved": True}

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), fields.flag("use_bias"))

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return {"use_bias": config.qkv_bias}
