"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    DecoderFamily,
)
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types, write_layer_types
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import NULL, whole


@register_family
class Qwen2(DecoderFamily):
    """Layers from `max_window_layers` on have a window, if `use_sliding_window` says so."""

    model_type = "qwen2"
    architecture = "Qwen2ForCausalLM"
    defaults = DecoderFamily.defaults | {
        "max_window_layers": 28,
        "num_key_value_heads": 32,
        "sliding_window": 4096,
        "use_sliding_window": False,
    }
    nullable = DecoderFamily.nullable | {"sliding_window"}
    fixed = {"qkv_bias": True}
    layer_names = ATTENTION_AND_MLP_NAMES | PRE_NORM_NAMES

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the windows: releases name one that is switched off."""
        window = fields.get("sliding_window", SIZE) or 0
        first = whole(0)
        if not fields.flag("use_sliding_window"):
            window = 0
            first = first | NULL  # Releases without windows leave it open.
        first_local = fields.get("max_window_layers", first)
        local = [bool(window) and layer >= first_local for layer in range(n_layers)]
        return read_layer_types(fields, window, local)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window and the layers that have it."""
        return write_layer_types(config) | {
            "sliding_window": config.sliding_window or None,
            "use_sliding_window": bool(config.sliding_window),
            "max_window_layers": 0,
        }
