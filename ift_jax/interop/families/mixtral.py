"""Mixtral: Mistral with experts."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.expert_fields import (
    IGNORED_ROUTER_FIELDS,
    read_experts,
    write_experts,
)
from ift_jax.interop.families.mistral import Mistral
from ift_jax.interop.model_family import register_family
from ift_jax.interop.tensor_names import EXPERT


@register_family
class Mixtral(Mistral):
    """The weights of a token's experts are always divided by their sum."""

    model_type = "mixtral"
    architecture = "MixtralForCausalLM"
    defaults = Mistral.defaults | {
        "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "router_jitter_noise": 0.0,
        "sliding_window": None,
    }
    ignored = {**Mistral.ignored, **IGNORED_ROUTER_FIELDS}
    fixed = {"normalize_expert_weights": True}
    layer_names = Mistral.layer_names | {
        "mlp.router": "block_sparse_moe.gate",
        "mlp.gate": f"block_sparse_moe.experts.{EXPERT}.w1",
        "mlp.up": f"block_sparse_moe.experts.{EXPERT}.w3",
        "mlp.down": f"block_sparse_moe.experts.{EXPERT}.w2",
    }

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the experts; noise in the router is refused, because no run would have it."""
        fields.expect("router_jitter_noise", 0.0)
        return read_experts(fields, default=8)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window and the experts."""
        return super().write_own_fields(config) | write_experts(config, "num_local_experts")
