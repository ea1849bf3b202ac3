"""IQuestCoder: Llama with other defaults."""

from typing import Any

from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.families.llama import Llama
from ift_jax.interop.model_family import register_family


@register_family
class IQuestCoder(Llama):
    """Its releases name two switches, which are off."""

    model_type = "iquestcoder"
    architecture = "LlamaForCausalLM"  # That is the class which transformers makes of it.
    export_rank = 2
    defaults = Llama.defaults | {
        "head_dim": 128,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
    }
    nullable = Llama.nullable | {"clip_qkv"}

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        fields.expect("clip_qkv", None)
        fields.expect("use_sliding_window", False)
        return super().read_own_fields(fields, head_dim)
