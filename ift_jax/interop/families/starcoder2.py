"""StarCoder2: Mistral with layer norms, biases, and feed-forward layers without a gate."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import without
from ift_jax.interop.families.mistral import Mistral
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import NUMBER


@register_family
class Starcoder2(Mistral):
    """All layers have the window, if there is one; biases are everywhere or nowhere."""

    model_type = "starcoder2"
    architecture = "Starcoder2ForCausalLM"
    export_rank = 2
    defaults = without(Mistral.defaults, "rms_norm_eps") | {
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": 1e-5,
        "num_key_value_heads": 2,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_bias": True,
    }
    ignored = {**Mistral.ignored, "embedding_dropout": NUMBER, "residual_dropout": NUMBER}
    fixed = {"norm": "biased_layer", "mlp_gated": False}
    norm_eps_field = "norm_epsilon"
    layer_names = Mistral.layer_names | {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return dict.fromkeys(("qkv_bias", "output_bias", "mlp_bias"), fields.flag("use_bias"))

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window and the biases."""
        return super().write_own_fields(config) | {"use_bias": config.qkv_bias}
