"""Gemma 3's text models: Gemma 2 with norms on each head's queries and keys."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, QK_NORM_NAMES
from ift_jax.interop.families.gemma2 import FOUR_NORM_NAMES, Gemma2
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import read_rope, rope_parameters


@register_family
class Gemma3Text(Gemma2):
    """Five of six layers are local, and have a RoPE base frequency of their own."""

    model_type = "gemma3_text"
    architecture = "Gemma3ForCausalLM"
    defaults = Gemma2.defaults | {"rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0}
    fixed = Gemma2.fixed | {"qk_norm": "head"}
    layer_names = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | FOUR_NORM_NAMES
    global_every = 6
    scales_rope_in_local_layers = False

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields: transformers 5 has one set for each type of layer."""
        name, parameters = rope_parameters(fields)
        local_theta = fields.number("rope_local_base_freq")
        if "full_attention" in parameters:
            local = fields.nested(name, parameters.get("sliding_attention") or {})
            local.expect("rope_type", "default")
            local_theta = local.number("rope_theta", local_theta)
            parameters = parameters["full_attention"]
        return read_rope(fields, name, parameters) | {"rope_local_theta": float(local_theta)}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what Gemma 2 has, and the local layers' base frequency."""
        fields = super().write_own_fields(config)
        return fields | {"rope_local_base_freq": config.rope_local_theta or config.rope_theta}
