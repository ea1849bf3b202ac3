"""Granite: Llama with multipliers of embeddings, attention scores, residuals and logits."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.families.llama import Llama
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import POSITIVE

# Theirs -> ours.
_MULTIPLIERS = {
    "embedding_multiplier": "embedding_multiplier",
    "residual_multiplier": "residual_multiplier",
    "logits_scaling": "logits_scaling",
}


@register_family
class Granite(Llama):
    """Each multiplier is 1 unless `config.json` says otherwise, that of attention scores too."""

    model_type = "granite"
    architecture = "GraniteForCausalLM"
    export_rank = 2
    defaults = Llama.defaults | dict.fromkeys([*_MULTIPLIERS, "attention_multiplier"], 1.0)
    nullable = Llama.nullable - {"head_dim"}

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases and the multipliers."""
        scale = float(fields.get("attention_multiplier", POSITIVE) or head_dim**-0.5)
        values = super().read_own_fields(fields, head_dim)
        values["query_scale"] = 0.0 if scale == head_dim**-0.5 else scale
        for theirs, ours in _MULTIPLIERS.items():
            values[ours] = float(fields.get(theirs, POSITIVE))
        return values

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases and the multipliers."""
        fields = super().write_own_fields(config)
        fields["attention_multiplier"] = config.query_scale or config.head_dim**-0.5
        return fields | {theirs: getattr(config, ours) for theirs, ours in _MULTIPLIERS.items()}
