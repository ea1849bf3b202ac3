"""Granite 4 without states and experts (micro, 1B, 350M), in the type of the hybrid models."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, PRE_NORM_NAMES, without
from ift_jax.interop.families.granite import Granite
from ift_jax.interop.layer_types import GLOBAL, SlidingWindows, sliding_windows
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import ANYTHING, FLAG, NUMBER, TEXT, list_of, one_of, whole

_ATTENTION = (GLOBAL, "attention")  # In transformers 5, and in releases.
_STATE = ("linear_attention", "mamba")
_MAMBA_FIELDS = ("chunk_size", "conv_bias", "d_conv", "d_head", "d_state", "expand", "n_groups")


@register_family
class GraniteMoeHybrid(Granite):
    """Granite whose feed-forward layer is what the experts of the others share."""

    model_type = "granitemoehybrid"
    architecture = "GraniteMoeHybridForCausalLM"
    export_rank = 3
    numbers = {**Granite.numbers, "d_ff": ("shared_intermediate_size", SIZE)}
    defaults = without(Granite.defaults, "mlp_bias") | {
        "num_local_experts": 8,
        "position_embedding_type": None,
        "shared_intermediate_size": 1024,
    }
    nullable = Granite.nullable | {"position_embedding_type"}
    ignored = {
        **Granite.ignored,
        **{f"mamba_{name}": ANYTHING for name in (*_MAMBA_FIELDS, "n_heads", "proj_bias")},
        "init_method": TEXT,
        "intermediate_size": whole(),  # The width of experts.
        "num_experts_per_tok": whole(),
        "output_router_logits": FLAG,
        "router_aux_loss_coef": NUMBER,
        "time_step_limit": ANYTHING,
    }
    layer_names = (
        ATTENTION_AND_MLP_NAMES
        | PRE_NORM_NAMES
        | {
            "mlp.gate": "shared_mlp.input_linear",
            "mlp.up": "shared_mlp.input_linear",
            "mlp.down": "shared_mlp.output_linear",
        }
    )

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, the multipliers, and whether layers have RoPE."""
        experts = fields.get("num_local_experts", whole(0))
        if experts:
            raise fields.refusal("num_local_experts", experts, "0: experts are not supported")
        fields.expect("mlp_bias", False)
        fields.expect("normalization_function", "rmsnorm")
        positions = fields.get("position_embedding_type", one_of(("rope", "nope")))
        rope_layers = "" if positions == "rope" else "N"
        return super().read_own_fields(fields, head_dim) | {"rope_layers": rope_layers}

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return that there are none; refuse layers with states."""
        kinds = fields.get("layer_types", list_of(one_of((*_ATTENTION, *_STATE))))
        if kinds is None or len(kinds) != n_layers or not set(kinds) <= set(_ATTENTION):
            expected = f"'attention' for each of {n_layers} layers: states are not supported"
            raise fields.refusal("layer_types", kinds, expected)
        return sliding_windows(0, [False] * n_layers)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the multipliers, and what makes the type a plain decoder."""
        return without(super().write_own_fields(config), "mlp_bias") | {
            "intermediate_size": config.d_ff,
            "layer_types": ["attention"] * config.n_layers,
            "mamba_n_heads": 1,  # `transformers` checks it: it divides any width.
            "num_experts_per_tok": 0,
            "num_local_experts": 0,
            "position_embedding_type": "rope" if all(config.rotating_layers()) else "nope",
        }
