"""Nemotron (Minitron, Nemotron-4): norms that scale by 1 + weight, and MLPs without a gate."""

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


@register_family
class Nemotron(DecoderFamily):
    """Half of each head is rotated, unless `config.json` says otherwise."""

    model_type = "nemotron"
    architecture = "NemotronForCausalLM"
    export_rank = 2
    defaults = without(DecoderFamily.defaults, "rms_norm_eps") | {
        "hidden_act": "relu2",
        "norm_eps": 1e-5,
    }
    nullable = DecoderFamily.nullable - {"partial_rotary_factor"} | {"head_dim"}
    fixed = {"norm": "biased_layer", "norm_offset": 1.0, "mlp_gated": False}
    norm_eps_field = "norm_eps"
    rotated_part = 0.5

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return read_attention_bias(fields) | {"mlp_bias": fields.flag("mlp_bias")}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return write_attention_bias(config) | {"mlp_bias": config.mlp_bias}
