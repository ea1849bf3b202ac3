"""OLMo 3: OLMo 2 with a sliding window in three of four layers, whose RoPE is never scaled."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.families.olmo2 import Olmo2
from ift_jax.interop.layer_types import (
    GLOBAL,
    LOCAL,
    SlidingWindows,
    is_global,
    read_layer_types,
    write_layer_types,
)
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import read_rope_by_layer_type, written_scaling

_THETA = 500_000.0


@register_family
class Olmo3(Olmo2):
    """YaRN is for the global layers alone."""

    model_type = "olmo3"
    architecture = "Olmo3ForCausalLM"
    export_rank = 2
    defaults = Olmo2.defaults | {"rope_theta": _THETA, "sliding_window": 4096}
    nullable = Olmo2.nullable | {"sliding_window"}
    scales_rope_in_local_layers = False

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", SIZE) or 0
        local = [not is_global(layer, 4) for layer in range(n_layers)]
        return read_layer_types(fields, window, local)

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields; one base frequency beside the objects is the global layers'."""
        values = read_rope_by_layer_type(fields, local_theta=_THETA)
        if not values.get("rope_truncate", True):  # transformers looks for it in the wrong object.
            raise fields.refusal("truncate", False, "true, which is all that transformers reads")
        if values["rope_local_theta"] == values["rope_theta"]:
            values["rope_local_theta"] = 0.0
        return values

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the windows, and RoPE by type of layer if the bases are unusual."""
        fields = super().write_own_fields(config) | write_layer_types(config)
        fields["sliding_window"] = config.sliding_window or None
        local_theta = config.rope_local_theta or config.rope_theta
        if (config.rope_theta, local_theta) != (_THETA, _THETA):
            scaling = {"rope_type": "default"}
            if config.rope_scaling != "none":
                scaling = written_scaling(config)
            fields["rope_scaling"] = None
            fields["rope_parameters"] = {
                GLOBAL: {"rope_theta": config.rope_theta, **scaling},
                LOCAL: {"rope_theta": local_theta, "rope_type": "default"},
            }
        return fields
