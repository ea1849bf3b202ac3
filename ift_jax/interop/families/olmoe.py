"""OLMoE: experts, and norms over all queries and all keys of a token, which may be clipped."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    QK_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.expert_fields import (
    EXPERT_NAMES,
    IGNORED_ROUTER_FIELDS,
    read_experts,
    write_experts,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import POSITIVE


@register_family
class Olmoe(DecoderFamily):
    """Unlike OLMo 2 it has norms before attention and experts."""

    model_type = "olmoe"
    architecture = "OlmoeForCausalLM"
    defaults = DecoderFamily.defaults | {
        "clip_qkv": None,
        "norm_topk_prob": False,
        "num_experts_per_tok": 8,
        "rms_norm_eps": 1e-5,
    }
    nullable = DecoderFamily.nullable | {"clip_qkv"}
    ignored = {**DecoderFamily.ignored, **IGNORED_ROUTER_FIELDS}
    fixed = {"qk_norm": "full"}
    layer_names = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | PRE_NORM_NAMES | EXPERT_NAMES
    heads_divide_width = True

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, the experts, and where projections are clipped."""
        clip = fields.get("clip_qkv", POSITIVE) or 0.0
        return (
            read_attention_bias(fields)
            | read_experts(fields, default=64)
            | {
                "clip_qkv": float(clip),
                "normalize_expert_weights": fields.flag("norm_topk_prob"),
            }
        )

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the experts, and where projections are clipped."""
        return (
            write_attention_bias(config)
            | write_experts(config, "num_experts")
            | {
                "clip_qkv": config.clip_qkv or None,
                "norm_topk_prob": config.normalize_expert_weights,
            }
        )
