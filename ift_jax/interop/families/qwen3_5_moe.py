"""Qwen3.5's text models with experts (35B-A3B, 122B-A10B, 397B-A17B; 3.6 and 3.8 too)."""

from collections.abc import Mapping
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import NUMBERS
from ift_jax.interop.expert_fields import (
    EXPERT_NAMES,
    IGNORED_ROUTER_FIELDS,
    SHARED_EXPERT_NAMES,
    read_experts,
    read_shared_expert,
    write_experts,
    write_shared_expert,
)
from ift_jax.interop.families.qwen3_5 import Qwen3_5Text
from ift_jax.interop.model_family import register_family
from ift_jax.interop.safetensors_files import Tensor
from ift_jax.interop.stacked_experts import split_stacked_experts


@register_family
class Qwen3_5MoeText(Qwen3_5Text):  # noqa: N801 - the name in `transformers`.
    """Every layer has experts; the weights of those of a token are always divided by their sum."""

    model_type = "qwen3_5_moe_text"
    architecture = "Qwen3_5MoeForCausalLM"
    defaults = Qwen3_5Text.defaults | {
        "moe_intermediate_size": 512,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 2,
        "shared_expert_intermediate_size": 512,
    }
    # The width of dense layers, of which there are none.
    ignored = {**Qwen3_5Text.ignored, **IGNORED_ROUTER_FIELDS, "intermediate_size": SIZE}
    fixed = {**Qwen3_5Text.fixed, "normalize_expert_weights": True}
    numbers = {**NUMBERS, "d_ff": ("moe_intermediate_size", SIZE)}
    layer_names = Qwen3_5Text.layer_names | EXPERT_NAMES | SHARED_EXPERT_NAMES

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return what Qwen3.5 has, and the experts."""
        return (
            super().read_own_fields(fields, head_dim)
            | read_experts(fields, default=256)
            | read_shared_expert(fields)
        )

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what Qwen3.5 has, and the experts."""
        return (
            super().write_own_fields(config)
            | write_experts(config, "num_experts")
            | write_shared_expert(config)
        )

    def unpack(self, tensors: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
        """Return a tensor for each expert, as `transformers` writes; releases stack them."""
        return split_stacked_experts(tensors, where)
