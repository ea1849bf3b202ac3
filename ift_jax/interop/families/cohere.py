"""Cohere (Command R): attention and MLP side by side behind one layer norm, and scaled logits."""

import dataclasses
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import SIZE, ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    QK_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    without,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family
from ift_jax.io.typed_fields import FLAG, NULL, POSITIVE, whole

# Fields of releases that describe the one model that `transformers` builds without reading them.
_NOTES = {
    "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_gated_activation": True,
    "use_parallel_block": True,
}


@register_family
class Cohere(DecoderFamily):
    """Command R+ also normalizes each head of queries and keys, with weights of its own."""

    model_type = "cohere"
    architecture = "CohereForCausalLM"
    export_rank = 2
    defaults = without(DecoderFamily.defaults, "rms_norm_eps") | {
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": True,
    }
    nullable = DecoderFamily.nullable | {"use_qk_norm", *_NOTES}
    fixed = {"norm": "layer", "norm_placement": "parallel", "rope_interleaved": True}
    # How several devices split the embedding, and a number beside `sliding_window_pattern` that
    # `transformers` does not read.
    ignored = {**DecoderFamily.ignored, "use_parallel_embedding": FLAG, "layer_switch": whole()}
    norm_eps_field = "layer_norm_eps"
    layer_names = (
        ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | {"attention_pre_norm": "input_layernorm"}
    )

    def read(self, fields: ConfigFields) -> DecoderConfig:
        """Return our config; raise a UserError for a value that is not supported.

        Command R was trained on longer texts than `max_position_embeddings` says.
        """
        config = super().read(fields)
        length = fields.get("model_max_length", SIZE | NULL, None)
        if length and config.rope_scaling == "none":
            return dataclasses.replace(config, max_length=length)
        return config

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the norms of queries and keys, the biases, and the scale of the logits."""
        for name, value in _NOTES.items():
            fields.expect(name, value)
        fields.expect("use_embedding_sharing", fields.flag("tie_word_embeddings"))
        scale = float(fields.get("logit_scale", POSITIVE))
        return read_attention_bias(fields) | {
            "logits_scaling": 1.0 / scale,
            "qk_norm": "each_head" if fields.flag("use_qk_norm") else "none",
        }

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the norms of queries and keys, the biases, and the scale of the logits."""
        return write_attention_bias(config) | {
            "logit_scale": 1.0 / config.logits_scaling,
            "use_qk_norm": config.qk_norm == "each_head",
        }
