"""GLM-4 of 2025: GLM with norms before and after attention and MLP."""

from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES
from ift_jax.interop.families.glm import Glm
from ift_jax.interop.families.phi3 import FUSED_MLP_NAMES
from ift_jax.interop.model_family import register_family


@register_family
class Glm4(Glm):
    """Four norms a layer, with names of their own."""

    model_type = "glm4"
    architecture = "Glm4ForCausalLM"
    fixed = Glm.fixed | {"norm_placement": "both"}
    layer_names = (
        ATTENTION_AND_MLP_NAMES
        | FUSED_MLP_NAMES
        | {
            "attention_pre_norm": "input_layernorm",
            "attention_post_norm": "post_self_attn_layernorm",
            "mlp_pre_norm": "post_attention_layernorm",
            "mlp_post_norm": "post_mlp_layernorm",
        }
    )
