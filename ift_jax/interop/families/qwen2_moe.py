"""Qwen1.5-MoE and Qwen2-57B-A14B: Qwen2 with experts, one of which all tokens share."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_WIDTH, SIZE, ConfigFields
from ift_jax.interop.decoder_family import NUMBERS, DecoderFamily
from ift_jax.interop.expert_fields import (
    EXPERT_NAMES,
    IGNORED_ROUTER_FIELDS,
    SHARED_EXPERT_NAMES,
    read_dense_layers,
    read_experts,
    read_shared_expert,
    write_dense_layers,
    write_experts,
    write_shared_expert,
)
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types, write_layer_types
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import whole


@register_family
class Qwen2Moe(DecoderFamily):
    """Every other layer below `max_window_layers` has the window, if `use_sliding_window` says so.

    Releases switch it off.
    """

    model_type = "qwen2_moe"
    architecture = "Qwen2MoeForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {
        "decoder_sparse_step": 1,
        "intermediate_size": 5632,
        "max_window_layers": 28,
        "mlp_only_layers": None,
        "moe_intermediate_size": 1408,
        "norm_topk_prob": False,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 16,
        "qkv_bias": True,
        "shared_expert_intermediate_size": 5632,
        "sliding_window": 4096,
        "use_sliding_window": False,
    }
    nullable = DecoderFamily.nullable | {"mlp_only_layers", "sliding_window"}
    ignored = {**DecoderFamily.ignored, **IGNORED_ROUTER_FIELDS}
    numbers = {**NUMBERS, "d_ff": ("moe_intermediate_size", SIZE)}
    layer_names = DecoderFamily.layer_names | EXPERT_NAMES | SHARED_EXPERT_NAMES

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, the experts, and which layers have none."""
        return (
            read_experts(fields, default=60)
            | read_shared_expert(fields)
            | read_dense_layers(fields)
            | {
                "normalize_expert_weights": fields.flag("norm_topk_prob"),
                "qkv_bias": fields.flag("qkv_bias"),
            }
        )

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window and which layers have it."""
        window = fields.get("sliding_window", whole(0, MOST_WIDTH)) or 0
        below = fields.get("max_window_layers", whole())
        if not fields.flag("use_sliding_window"):
            window = 0
        local = [bool(window) and i % 2 == 0 and i < below for i in range(n_layers)]
        return read_layer_types(fields, window, local)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the windows, the biases, the experts, and which layers have none."""
        return (
            write_layer_types(config)
            | write_experts(config, "num_experts")
            | write_dense_layers(config)
            | write_shared_expert(config)
            | {
                "norm_topk_prob": config.normalize_expert_weights,
                "qkv_bias": config.qkv_bias,
                "sliding_window": config.sliding_window or None,
                "use_sliding_window": bool(config.sliding_window),
            }
        )
