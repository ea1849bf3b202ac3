"""Phi-3 and Phi-4: Llama with fused projections; Phi-4-mini rotates a part of each head."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, PRE_NORM_NAMES, DecoderFamily
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import rope_parameters
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
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    }
    nullable = DecoderFamily.nullable | {"sliding_window"}
    ignored = {
        **DecoderFamily.ignored,
        "embd_pdrop": NUMBER,
        "original_max_position_embeddings": whole(1),  # Of scaled RoPE.
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
        """Return the RoPE fields; the family knows no scaling but LongRoPE."""
        name, parameters = rope_parameters(fields)
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind != "default":
            raise fields.refusal(f"{name}.rope_type", kind, "'default'; LongRoPE is not supported")
        return super().read_rope(fields)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window."""
        return {"sliding_window": config.sliding_window or None}
