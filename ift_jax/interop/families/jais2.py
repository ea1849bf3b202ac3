"""Jais 2: Llama with layer norms, biases, and feed-forward layers without a gate."""

from ift_jax.interop.decoder_family import without
from ift_jax.interop.families.llama import Llama
from ift_jax.interop.model_family import register_family


@register_family
class Jais2(Llama):
    """There are biases unless `config.json` says otherwise."""

    model_type = "jais2"
    architecture = "Jais2ForCausalLM"
    export_rank = 2
    defaults = without(Llama.defaults, "rms_norm_eps") | {
        "attention_bias": True,
        "hidden_act": "relu2",
        "layer_norm_eps": 1e-5,
        "mlp_bias": True,
    }
    fixed = {"norm": "biased_layer", "mlp_gated": False}
    norm_eps_field = "layer_norm_eps"
