"""Ministral 8B: Mistral whose layers may differ in having the window."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.families.mistral import Mistral
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types, write_layer_types
from ift_jax.interop.model_family import register_family


@register_family
class Ministral(Mistral):
    """`layer_types` says which layers have the window; by default all of them."""

    model_type = "ministral"
    architecture = "MinistralForCausalLM"
    export_rank = 2

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", SIZE) or 0
        return read_layer_types(fields, window, local=[bool(window)] * n_layers)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window and the layers that have it."""
        return super().write_own_fields(config) | write_layer_types(config)
