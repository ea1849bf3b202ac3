"""GPT-OSS: experts with biases, a clamped activation, sinks, windows in every other layer."""

from collections.abc import Mapping
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.expert_fields import IGNORED_ROUTER_FIELDS, read_experts, write_experts
from ift_jax.interop.layer_types import SlidingWindows, read_layer_types, write_layer_types
from ift_jax.interop.model_family import register_family
from ift_jax.interop.mxfp4 import dequantize
from ift_jax.interop.rope_fields import read_rope, rope_parameters
from ift_jax.interop.safetensors_files import Tensor
from ift_jax.io.typed_fields import FLAG, NULL, OBJECT, POSITIVE, TEXTS, one_of, whole

_GATE_UP = "mlp.experts.gate_up_proj"
_ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


@register_family
class GptOss(DecoderFamily):
    """The weights of a token's experts are the softmax over their logits: divided by their sum.

    Releases hold the experts in MXFP4, which is read as bfloat16; exports are not quantized.
    """

    model_type = "gpt_oss"
    architecture = "GptOssForCausalLM"
    defaults = DecoderFamily.defaults | {
        "attention_bias": True,
        "head_dim": 64,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 150_000.0,
        "sliding_window": 128,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    }
    nullable = DecoderFamily.nullable - {"num_key_value_heads"} | {"sliding_window"}
    ignored = {
        **DecoderFamily.ignored,
        **IGNORED_ROUTER_FIELDS,
        # Notes of the releases, which hold both numbers under the names that are read too.
        "experts_per_token": whole(),
        "initial_context_length": whole(),
    }
    fixed = {"attention_sinks": True, "mlp_bias": True, "normalize_expert_weights": True}
    layer_names = {
        **{ours: theirs for ours, theirs in ATTENTION_AND_MLP_NAMES.items() if "mlp" not in ours},
        **PRE_NORM_NAMES,
        "attention.sinks": "self_attn.sinks",
        "mlp.router": "mlp.router",
        "mlp.gate.weight": _GATE_UP,
        "mlp.up.weight": _GATE_UP,
        "mlp.gate.bias": f"{_GATE_UP}_bias",
        "mlp.up.bias": f"{_GATE_UP}_bias",
        "mlp.down.weight": "mlp.experts.down_proj",
        "mlp.down.bias": "mlp.experts.down_proj_bias",
    }
    interleaved = frozenset({_GATE_UP, f"{_GATE_UP}_bias"})
    packed_dtypes = ("U8",)

    def read_activation(self, fields: ConfigFields) -> str:
        """Return the activation, the only one that the code of `transformers` has."""
        fields.expect("hidden_act", "silu")
        return "clamped_swish"

    def written_activation(self, config: DecoderConfig) -> str | None:
        """Return what releases write."""
        return "silu" if config.activation == "clamped_swish" else None

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, the experts and the numbers of their activation."""
        _check_quantization(fields)
        return (
            read_attention_bias(fields)
            | read_experts(fields, default=128)
            | {
                "activation_limit": float(fields.get("swiglu_limit", POSITIVE)),
                "activation_slope": float(fields.get("swiglu_alpha", POSITIVE)),
            }
        )

    def read_windows(self, fields: ConfigFields, n_layers: int) -> SlidingWindows:
        """Return the window, which every other layer has from the first on."""
        window = fields.get("sliding_window", SIZE) or 0
        return read_layer_types(fields, window, [layer % 2 == 0 for layer in range(n_layers)])

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields; YaRN with the releases' numbers where nothing is written."""
        name, parameters = rope_parameters(fields)
        return read_rope(fields, name, parameters or _ROPE)

    def unpack(self, tensors: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
        """Return the tensors, those in MXFP4 as ones in bfloat16."""
        return dequantize(tensors, where)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the experts, the numbers of their activation and the windows."""
        # Nothing written would mean YaRN.
        rope = {"rope_scaling": {"rope_type": "default"}} if config.rope_scaling == "none" else {}
        return (
            write_attention_bias(config)
            | write_experts(config, "num_local_experts")
            | write_layer_types(config)
            | rope
            | {
                "sliding_window": config.sliding_window or None,
                "swiglu_alpha": config.activation_slope,
                "swiglu_limit": config.activation_limit,
            }
        )


def _check_quantization(fields: ConfigFields) -> None:
    """Refuse weights that are quantized in another way than MXFP4."""
    quantization = fields.get("quantization_config", OBJECT | NULL, None)
    if quantization is None:
        return
    inner = fields.nested("quantization_config", quantization)
    inner.get("quant_method", one_of(("mxfp4",)))
    inner.get("modules_to_not_convert", TEXTS | NULL, None)  # The tensors' dtypes say it as well.
    inner.get("dequantize", FLAG, False)
    inner.finish()
