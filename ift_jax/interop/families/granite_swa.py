"""Granite with windows and sinks ("swash"): each layer has a RoPE base of its own, or none."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_LAYERS, SIZE, ConfigFields
from ift_jax.interop.families.granite import Granite
from ift_jax.interop.layer_types import (
    LOCAL,
    SlidingWindows,
    read_layer_types,
    shortest_pattern,
    write_layer_types,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import NOT_NEGATIVE, list_of, whole


@register_family
class GraniteSwa(Granite):
    """Layers of a kind, local or global, must have one base; a base of 0 means no positions."""

    model_type = "granite_swa"
    architecture = "GraniteSWAForCausalLM"
    defaults = Granite.defaults | {
        "layer_rope_theta": None,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "tie_word_embeddings": True,
    }
    nullable = Granite.nullable | {"layer_rope_theta", "sliding_window"}
    fixed = {"attention_sinks": True}
    layer_names = Granite.layer_names | {"attention.sinks": "self_attn.sinks"}

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window, which all but every fourth layer have from the second on."""
        window = fields.get("sliding_window", SIZE) or 0
        return read_layer_types(fields, window, _usual_local_layers(n_layers))

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields, with the bases of both kinds of layers, and which have none."""
        values = super().read_rope(fields)
        n_layers = fields.get("num_hidden_layers", whole(1, MOST_LAYERS))
        bases = fields.get("layer_rope_theta", list_of(NOT_NEGATIVE))
        if bases is None:
            return values
        if len(bases) != n_layers:
            raise fields.refusal("layer_rope_theta", bases, f"{n_layers} items, one for each layer")
        names = fields.raw.get("layer_types")  # `read_windows` checks them.
        local = _usual_local_layers(n_layers)
        if names is not None:
            local = [name == LOCAL for name in names]
        theta = _base_of_kind(fields, bases, local, False) or values["rope_theta"]
        local_theta = _base_of_kind(fields, bases, local, True) or theta
        letters = "".join("R" if base else "N" for base in bases)
        return values | {
            "rope_theta": theta,
            "rope_local_theta": 0.0 if local_theta == theta else local_theta,
            "rope_layers": shortest_pattern(letters) if "N" in letters else "",
        }

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what Granite has, the windows, and the base of each layer."""
        bases = []
        layers = zip(config.rotating_layers(), config.local_layers(), strict=True)
        for rotates, is_local in layers:
            local_theta = config.rope_local_theta or config.rope_theta
            theta = local_theta if is_local else config.rope_theta
            bases.append(theta if rotates else 0.0)
        return (
            super().write_own_fields(config)
            | write_layer_types(config)
            | {"layer_rope_theta": bases, "sliding_window": config.sliding_window or None}
        )


def _usual_local_layers(n_layers: int) -> list[bool]:
    """Return whether each layer is local where `layer_types` does not say it."""
    return [layer % 4 > 0 for layer in range(n_layers)]


def _base_of_kind(
    fields: ConfigFields, bases: list[float], local: list[bool], wanted: bool
) -> float:
    """Return the base of all local or all global layers; 0 if none of them has positions."""
    found = {
        base for base, is_local in zip(bases, local, strict=True) if base and is_local == wanted
    }
    if len(found) > 1:
        raise fields.refusal("layer_rope_theta", bases, "one base for the layers of a kind")
    return float(found.pop()) if found else 0.0
