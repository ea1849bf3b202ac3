"""CWM (Code World Model): Llama with windows in three of four layers."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import DecoderFamily
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types, write_layer_types
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import LENGTH, read_rope, rope_parameters

_DEFAULT_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    LENGTH: 8192,
}


@register_family
class Cwm(DecoderFamily):
    """The first of four layers is the global one; RoPE is scaled in all of them."""

    model_type = "cwm"
    architecture = "CwmForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "head_dim": 128,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "sliding_window": 8192,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"}
    heads_divide_width = True

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return {"mlp_bias": fields.flag("mlp_bias")}

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", SIZE)
        return read_layer_types(fields, window, [layer % 4 != 0 for layer in range(n_layers)])

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields; without any, RoPE is scaled as in the release."""
        name, parameters = rope_parameters(fields)
        return read_rope(fields, name, parameters or _DEFAULT_ROPE)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the window, which layers have it, and RoPE that is not scaled."""
        fields = write_layer_types(config) | {
            "mlp_bias": config.mlp_bias,
            "sliding_window": config.sliding_window or config.max_length,
        }
        if config.rope_scaling == "none":
            fields["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
        return fields
