"""Mistral 7B: Llama with a sliding window in every layer (0.1), or in none."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    DecoderFamily,
)
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types
from ift_jax.interop.model_family import register_family


@register_family
class Mistral(DecoderFamily):
    """All layers have the window, if there is one."""

    model_type = "mistral"
    architecture = "MistralForCausalLM"
    defaults = DecoderFamily.defaults | {"num_key_value_heads": 8, "sliding_window": 4096}
    nullable = DecoderFamily.nullable - {"num_key_value_heads"} | {"head_dim", "sliding_window"}
    layer_names = ATTENTION_AND_MLP_NAMES | PRE_NORM_NAMES

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window, which every layer has."""
        window = fields.get("sliding_window", SIZE) or 0
        return read_layer_types(fields, window, local=[bool(window)] * n_layers, fixed=True)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window."""
        return {"sliding_window": config.sliding_window or None}
