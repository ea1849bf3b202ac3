"""Cohere (Command R): attention and MLP side by side behind one layer norm, and scaled logits."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    DecoderFamily,
    read_attention_bias,
    without,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import POSITIVE


@register_family
class Cohere(DecoderFamily):
    """Norms on queries and keys, which Command R+ has, are not supported."""

    model_type = "cohere"
    architecture = "CohereForCausalLM"
    export_rank = 2
    defaults = without(DecoderFamily.defaults, "rms_norm_eps") | {
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": True,
    }
    nullable = DecoderFamily.nullable | {"use_qk_norm"}
    fixed = {"norm": "layer", "norm_placement": "parallel", "rope_interleaved": True}
    norm_eps_field = "layer_norm_eps"
    layer_names = ATTENTION_AND_MLP_NAMES | {"attention_pre_norm": "input_layernorm"}

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases and the scale of the logits."""
        fields.expect("use_qk_norm", False)
        scale = float(fields.get("logit_scale", POSITIVE))
        return read_attention_bias(fields) | {"logits_scaling": 1.0 / scale}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases and the scale of the logits."""
        return write_attention_bias(config) | {"logit_scale": 1.0 / config.logits_scaling}
