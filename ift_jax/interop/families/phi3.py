"""Phi-3 and Phi-4: Llama with fused projections; Phi-4-mini rotates a part of each head."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, PRE_NORM_NAMES, DecoderFamily
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import LENGTH, read_rope, rope_parameters
from ift_jax.io.typed_fields import NUMBER, whole

FUSED_MLP_NAMES = {"mlp.gate": "mlp.gate_up_proj", "mlp.up": "mlp.gate_up_proj"}
_FUSED_ATTENTION_NAMES = dict.fromkeys(
    ("attention.query", "attention.key", "attention.value"), "self_attn.qkv_proj"
)


@register_family
class Phi3(DecoderFamily):
    """All layers have the window, if there is one."""

    model_type = "phi3"
    architecture = "Phi3ForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        LENGTH: 4096,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    }
    nullable = DecoderFamily.nullable | {"sliding_window"}
    ignored = {
        **DecoderFamily.ignored,
        "embd_pdrop": NUMBER,
        "resid_pdrop": NUMBER,
    }
    layer_names = (
        ATTENTION_AND_MLP_NAMES | PRE_NORM_NAMES | _FUSED_ATTENTION_NAMES | FUSED_MLP_NAMES
    )
    rotated_part = 1.0

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window, which every layer has."""
        window = fields.get("sliding_window", SIZE) or 0
        return read_layer_types(fields, window, local=[bool(window)] * n_layers, fixed=True)

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields: if it is LongRoPE, its original length is a field beside them."""
        name, parameters = rope_parameters(fields)
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        length = fields.get(LENGTH, whole(1, 2**31 - 1))
        if kind in ("longrope", "su", "yarn"):  # Early names of it.
            parameters = {**parameters, "rope_type": "longrope", LENGTH: length}
        elif kind != "default":
            raise fields.refusal(f"{name}.rope_type", kind, "'default' or 'longrope'")
        return read_rope(fields, name, parameters, in_part=True)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window, and the length before LongRoPE."""
        fields: dict[str, Any] = {"sliding_window": config.sliding_window or None}
        if config.rope_scaling == "longrope":
            fields[LENGTH] = config.rope_original_length
        return fields
