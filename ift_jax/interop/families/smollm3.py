"""SmolLM3: Llama without positions in every fourth layer."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_LAYERS, SIZE, ConfigFields
from ift_jax.interop.families.llama import Llama
from ift_jax.interop.layer_types import (
    SlidingWindows,
    read_layer_types,
    shortest_pattern,
    write_layer_types,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import list_of, one_of, whole


@register_family
class SmolLM3(Llama):
    """Layers without RoPE may have a window."""

    model_type = "smollm3"
    architecture = "SmolLM3ForCausalLM"
    export_rank = 2
    defaults = Llama.defaults | {
        "no_rope_layer_interval": 4,
        "no_rope_layers": None,
        "num_key_value_heads": 4,
        "rope_theta": 2_000_000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
    }
    nullable = Llama.nullable - {"head_dim"} | {"no_rope_layers", "sliding_window"}

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", SIZE) or 0
        if not fields.flag("use_sliding_window"):
            window = 0
        local = [bool(window) and not rotates for rotates in _rotating_layers(fields, n_layers)]
        return read_layer_types(fields, window, local)

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields, which layers have it among them."""
        n_layers = fields.get("num_hidden_layers", whole(1, MOST_LAYERS))
        letters = "".join("R" if rotates else "N" for rotates in _rotating_layers(fields, n_layers))
        pattern = "" if "N" not in letters else shortest_pattern(letters)
        return super().read_rope(fields) | {"rope_layers": pattern}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the layers with RoPE, and the windows."""
        return (
            super().write_own_fields(config)
            | write_layer_types(config)
            | {
                "no_rope_layers": [int(rotates) for rotates in config.rotating_layers()],
                "use_sliding_window": bool(config.sliding_window),
                "sliding_window": config.sliding_window or None,
            }
        )


def _rotating_layers(fields: ConfigFields, n_layers: int) -> list[bool]:
    """Return whether each layer has RoPE; the field's name says the opposite of what it holds."""
    interval = fields.get("no_rope_layer_interval", whole(1, MOST_LAYERS))
    rotating = fields.get("no_rope_layers", list_of(one_of((0, 1))))
    if rotating is None:
        return [(layer + 1) % interval != 0 for layer in range(n_layers)]
    if len(rotating) < n_layers:
        raise fields.refusal("no_rope_layers", rotating, f"{n_layers} items, one for each layer")
    return [bool(rotates) for rotates in rotating[:n_layers]]
