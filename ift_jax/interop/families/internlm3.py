"""InternLM3: Llama whose biases are everywhere or nowhere, under two names each."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.families.llama import Llama
from ift_jax.interop.model_family import register_family


@register_family
class InternLM3(Llama):
    """Releases write `qkv_bias` and `bias` for `attention_bias` and `mlp_bias`."""

    model_type = "internlm3"
    architecture = "LlamaForCausalLM"  # That is the class which transformers makes of it.
    export_rank = 2
    defaults = Llama.defaults | {
        "head_dim": 128,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
    }

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, of which transformers has all or none."""
        biases = [
            fields.flag(name)
            for name in ("attention_bias", "mlp_bias", "qkv_bias", "bias")
            if name in fields.raw
        ]
        if len(set(biases)) > 1 or (any(biases) and len(biases) < 2):
            raise fields.refusal("attention_bias", biases[0], "the same as mlp_bias")
        return dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), any(biases))

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
