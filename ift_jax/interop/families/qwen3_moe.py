"""Qwen3 with experts, none of which all tokens share; some layers may have none."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import NUMBERS, DecoderFamily
from ift_jax.interop.expert_fields import (
    EXPERT_NAMES,
    IGNORED_ROUTER_FIELDS,
    read_dense_layers,
    read_experts,
    write_dense_layers,
    write_experts,
)
from ift_jax.interop.families.qwen3 import Qwen3
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types
from ift_jax.interop.model_family import register_family


@register_family
class Qwen3Moe(Qwen3):
    """All layers have the window, if there is one."""

    model_type = "qwen3_moe"
    architecture = "Qwen3MoeForCausalLM"
    defaults = DecoderFamily.defaults | {
        "decoder_sparse_step": 1,
        "intermediate_size": 6144,
        "mlp_only_layers": None,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "use_sliding_window": False,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"} | {
        "mlp_only_layers",
        "sliding_window",
    }
    ignored = {**DecoderFamily.ignored, **IGNORED_ROUTER_FIELDS}
    numbers = {**NUMBERS, "d_ff": ("moe_intermediate_size", SIZE)}
    layer_names = Qwen3.layer_names | EXPERT_NAMES

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, the experts, and which layers have none."""
        return (
            super().read_own_fields(fields, head_dim)
            | read_experts(fields, default=128)
            | read_dense_layers(fields)
            | {"normalize_expert_weights": fields.flag("norm_topk_prob")}
        )

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window: releases name one that is switched off."""
        window = fields.get("sliding_window", SIZE) or 0
        if not fields.flag("use_sliding_window"):
            window = 0
        return read_layer_types(fields, window, local=[bool(window)] * n_layers, fixed=True)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the windows, the biases, the experts, and which layers have none."""
        return (
            super().write_own_fields(config)
            | write_experts(config, "num_experts")
            | write_dense_layers(config)
            | {"norm_topk_prob": config.normalize_expert_weights}
        )
