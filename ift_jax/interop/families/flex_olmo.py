"""FlexOlmo: OLMo 2 with experts."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.expert_fields import (
    EXPERT_NAMES,
    IGNORED_ROUTER_FIELDS,
    read_experts,
    write_experts,
)
from ift_jax.interop.families.olmo2 import Olmo2
from ift_jax.interop.model_family import register_family


@register_family
class FlexOlmo(Olmo2):
    """Every layer has experts."""

    model_type = "flex_olmo"
    architecture = "FlexOlmoForCausalLM"
    defaults = Olmo2.defaults | {
        "norm_topk_prob": False,
        "num_experts_per_tok": 5,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500_000.0,
    }
    ignored = {**Olmo2.ignored, **IGNORED_ROUTER_FIELDS}
    layer_names = Olmo2.layer_names | EXPERT_NAMES

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases and the experts."""
        return (
            super().read_own_fields(fields, head_dim)
            | read_experts(fields, default=7)
            | {"normalize_expert_weights": fields.flag("norm_topk_prob")}
        )

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases and the experts."""
        return (
            super().write_own_fields(config)
            | write_experts(config, "num_experts")
            | {"norm_topk_prob": config.normalize_expert_weights}
        )
