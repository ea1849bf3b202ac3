"""Qwen3-Next: Qwen3.5's layers with experts, and projections of linear attention by key head."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
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
from ift_jax.interop.families.qwen3_5 import Qwen3_5Text
from ift_jax.interop.model_family import register_family

_QKVZ, _BA = "linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"


@register_family
class Qwen3Next(Qwen3_5Text):
    """Two tensors hold what Qwen3.5 has in four: the parts of each key head together."""

    model_type = "qwen3_next"
    architecture = "Qwen3NextForCausalLM"
    export_rank = 2
    defaults = Qwen3_5Text.defaults | {
        "decoder_sparse_step": 1,
        "intermediate_size": 5632,
        "mlp_only_layers": None,
        "moe_intermediate_size": 512,
        "norm_topk_prob": True,
        "num_experts_per_tok": 10,
        "num_key_value_heads": 2,
        "shared_expert_intermediate_size": 512,
    }
    nullable = Qwen3_5Text.nullable | {"mlp_only_layers"}
    ignored = {**Qwen3_5Text.ignored, **IGNORED_ROUTER_FIELDS}
    numbers = {**NUMBERS, "d_ff": ("moe_intermediate_size", SIZE)}
    layer_names = {
        **Qwen3_5Text.layer_names,
        **EXPERT_NAMES,
        **SHARED_EXPERT_NAMES,
        "linear_attention.qkv": _QKVZ,
        "linear_attention.gate": _QKVZ,
        "linear_attention.beta": _BA,
        "linear_attention.decay": _BA,
    }

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return what Qwen3.5 has, the experts, and which layers have none."""
        return (
            super().read_own_fields(fields, head_dim)
            | read_experts(fields, default=512)
            | read_shared_expert(fields)
            | read_dense_layers(fields)
            | {"normalize_expert_weights": fields.flag("norm_topk_prob")}
        )

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields; there are no grids of positions."""
        return DecoderFamily.read_rope(self, fields)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what Qwen3.5 has, the experts, and which layers have none."""
        return (
            super().write_own_fields(config)
            | write_experts(config, "num_experts")
            | write_dense_layers(config)
            | write_shared_expert(config)
            | {
                "norm_topk_prob": config.normalize_expert_weights,
            }
        )

    def fused_rows(self, config: DecoderConfig) -> Mapping[str, tuple[int, ...]]:
        """Return the rows of the parts: those of the first key head, then those of the second."""
        c = config
        per_head = c.linear_value_heads // c.linear_key_heads
        value = per_head * c.linear_value_dim
        q, k, v, z = _rows_by_part(c, [c.linear_key_dim, c.linear_key_dim, value, value])
        beta, decay = _rows_by_part(c, [per_head, per_head])
        return {
            "linear_attention.qkv": (*q, *k, *v),
            "linear_attention.gate": z,
            "linear_attention.beta": beta,
            "linear_attention.decay": decay,
        }


def _rows_by_part(config: DecoderConfig, sizes: list[int]) -> list[tuple[int, ...]]:
    """Return the rows of each part in a tensor that holds all parts of a key head together.

    Args:
        config: The model.
        sizes: The rows of each part that belong to one key head.
    """
    rows = np.arange(config.linear_key_heads * sum(sizes)).reshape(config.linear_key_heads, -1)
    parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
    return [tuple(part.reshape(-1).tolist()) for part in parts]
