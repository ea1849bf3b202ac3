"""OLMo: Llama with layer norms that have no weights, and optionally clipped projections."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    DecoderFamily,
    read_attention_bias,
    without,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import POSITIVE


@register_family
class Olmo(DecoderFamily):
    """The norms' epsilon is a constant of its code in transformers."""

    model_type = "olmo"
    architecture = "OlmoForCausalLM"
    export_rank = 2
    defaults = without(DecoderFamily.defaults, "rms_norm_eps") | {
        "attention_bias": False,
        "clip_qkv": None,
    }
    nullable = DecoderFamily.nullable | {"clip_qkv"}
    fixed = {"norm": "plain_layer", "norm_eps": 1e-5}
    norm_eps_field = ""

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, and where projections are clipped."""
        clip = fields.get("clip_qkv", POSITIVE) or 0.0
        return read_attention_bias(fields) | {"clip_qkv": float(clip)}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, and where projections are clipped."""
        return write_attention_bias(config) | {"clip_qkv": config.clip_qkv or None}
