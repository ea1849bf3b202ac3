"""Arcee (AFM-4.5B): Llama whose feed-forward layers have no gate, and a squared relu."""

from ift_jax.interop.families.llama import Llama
from ift_jax.interop.model_family import register_family


@register_family
class Arcee(Llama):
    """Biases are optional, as in Llama."""

    model_type = "arcee"
    architecture = "ArceeForCausalLM"
    export_rank = 2
    defaults = Llama.defaults | {"hidden_act": "relu2", "rms_norm_eps": 1e-5}
    fixed = {"mlp_gated": False}
