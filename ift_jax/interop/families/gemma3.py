"""Gemma 3's text models: Gemma 2 with norms on each head's queries and keys."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import MOST_LAYERS, ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, QK_NORM_NAMES
from ift_jax.interop.families.gemma2 import FOUR_NORM_NAMES, Gemma2
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import read_rope_by_layer_type
from ift_jax.io.typed_fields import POSITIVE, whole


@register_family
class Gemma3Text(Gemma2):
    """Five of six layers are local, and have a RoPE base frequency of their own."""

    model_type = "gemma3_text"
    architecture = "Gemma3ForCausalLM"
    defaults = Gemma2.defaults | {
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "max_position_embeddings": 131_072,
        "num_attention_heads": 8,
        "rope_local_base_freq": 10_000.0,
        "rope_theta": 1_000_000.0,
        "sliding_window_pattern": 6,
        "vocab_size": 262_208,
    }
    fixed = Gemma2.fixed | {"qk_norm": "head"}
    layer_names = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | FOUR_NORM_NAMES
    global_every = 6
    scales_rope_in_local_layers = False

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields: transformers 5 has one set for each type of layer."""
        local_theta = fields.get("rope_local_base_freq", POSITIVE)
        return read_rope_by_layer_type(fields, local_theta=float(local_theta))

    def read_pattern(self, fields: ConfigFields) -> int:
        """Return which layers are global, every n-th one, unless `layer_types` lists them."""
        if fields.raw.get("layer_types") is not None:
            return self.global_every
        pattern = fields.get("sliding_window_pattern", whole(1, MOST_LAYERS))
        fields.expect("_sliding_window_pattern", pattern)
        return pattern

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what Gemma 2 has, and the local layers' base frequency."""
        fields = super().write_own_fields(config)
        return fields | {"rope_local_base_freq": config.rope_local_theta or config.rope_theta}
