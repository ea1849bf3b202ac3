"""HyperCLOVA X: Granite with norms after attention and MLP too, and logits that are multiplied."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, PRE_NORM_NAMES
from ift_jax.interop.families.granite import Granite
from ift_jax.interop.model_family import register_family


@register_family
class HyperClovaX(Granite):
    """The norms after are optional."""

    model_type = "hyperclovax"
    architecture = "HyperCLOVAXForCausalLM"
    defaults = Granite.defaults | {"attention_multiplier": None, "use_post_norm": True}
    nullable = Granite.nullable | {"attention_multiplier", "head_dim"}
    layer_names = (
        ATTENTION_AND_MLP_NAMES
        | PRE_NORM_NAMES
        | {"attention_post_norm": "post_norm1", "mlp_post_norm": "post_norm2"}
    )

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases, the multipliers, and where the norms are."""
        values = super().read_own_fields(fields, head_dim)
        values["logits_scaling"] = 1.0 / values["logits_scaling"]
        values["norm_placement"] = "both" if fields.flag("use_post_norm") else "pre"
        return values

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases, the multipliers, and where the norms are."""
        return super().write_own_fields(config) | {
            "logits_scaling": 1.0 / config.logits_scaling,
            "use_post_norm": config.norm_placement == "both",
        }
