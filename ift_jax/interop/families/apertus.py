"""Apertus: feed-forward layers without a gate, whose activation each layer learns."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ACTIVATIONS,
    ATTENTION_AND_MLP_NAMES,
    QK_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import LENGTH, read_rope, rope_parameters

_DEFAULT_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 12_000_000.0,
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    LENGTH: 8192,
}


@register_family
class Apertus(DecoderFamily):
    """Each head's queries and keys are normalized, as in Qwen3."""

    model_type = "apertus"
    architecture = "ApertusForCausalLM"
    export_rank = 2
    activations = {**ACTIVATIONS, "xielu": "xielu"}
    defaults = DecoderFamily.defaults | {
        "hidden_act": "xielu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 12_000_000.0,
    }
    fixed = {"mlp_gated": False, "qk_norm": "head"}
    layer_names = {
        **ATTENTION_AND_MLP_NAMES,
        **QK_NORM_NAMES,
        "attention_pre_norm": "attention_layernorm",
        "mlp_pre_norm": "feedforward_layernorm",
        "mlp.xielu.alpha_n": "mlp.act_fn.alpha_n",
        "mlp.xielu.alpha_p": "mlp.act_fn.alpha_p",
        "mlp.xielu.beta": "mlp.act_fn.beta",
        "mlp.xielu.eps": "mlp.act_fn.eps",
    }
    scalars = frozenset({"mlp.act_fn.beta", "mlp.act_fn.eps"})

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases; refuse what the code of early releases had as options."""
        for name, value in (("mlp_bias", False), ("post_norm", False), ("qk_norm", True)):
            fields.expect(name, value)
        fields.expect("hidden_dropout", 0.0)
        return read_attention_bias(fields)

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields; without any, RoPE is scaled as in the releases."""
        name, parameters = rope_parameters(fields)
        return read_rope(fields, name, parameters or _DEFAULT_ROPE)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, and RoPE that is not scaled."""
        fields = write_attention_bias(config)
        if config.rope_scaling == "none":
            fields["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
        return fields
