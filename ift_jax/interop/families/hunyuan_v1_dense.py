"""Hunyuan (dense): Llama with norms on each head's queries and keys after RoPE."""

import dataclasses
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import (
    ATTENTION_AND_MLP_NAMES,
    PRE_NORM_NAMES,
    DecoderFamily,
    read_attention_bias,
    write_attention_bias,
)
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import read_rope, rope_parameters
from ift_jax.io.typed_fields import NULL, NUMBER, POSITIVE, TEXT, TOKEN_ID, Kind

# What a release writes beside `alpha`, and transformers does not read then.
_NOTES = ("beta_fast", "beta_slow", "factor", "mscale", "mscale_all_dim")
_ALPHA = Kind("a number above 0, at most 1e9", lambda v: POSITIVE.accepts(v) and v <= 1e9)


@register_family
class HunyuanV1Dense(DecoderFamily):
    """Its scaling "dynamic" with an `alpha` does not depend on the length of the text."""

    model_type = "hunyuan_v1_dense"
    architecture = "HunYuanDenseV1ForCausalLM"
    export_rank = 2
    defaults = DecoderFamily.defaults | {"rms_norm_eps": 1e-5}
    nullable = DecoderFamily.nullable | {"head_dim"}
    ignored = {**DecoderFamily.ignored, "eod_token_id": TOKEN_ID}
    fixed = {"qk_norm": "head_after_rope"}
    layer_names = (
        ATTENTION_AND_MLP_NAMES
        | PRE_NORM_NAMES
        | {
            "attention.query_norm": "self_attn.query_layernorm",
            "attention.key_norm": "self_attn.key_layernorm",
        }
    )

    def read(self, fields: ConfigFields) -> DecoderConfig:
        """Return our config: `alpha` stretches the base of the RoPE frequencies."""
        config = super().read(fields)
        alpha = _alpha(rope_parameters(fields)[1])
        if not alpha:
            return config
        if config.head_dim == 2:
            raise fields.refusal("head_dim", 2, "more, as RoPE has an alpha")
        stretch = float(alpha ** (config.head_dim / (config.head_dim - 2)))
        return dataclasses.replace(config, rope_theta=config.rope_theta * stretch)

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields, without `alpha`."""
        name, parameters = rope_parameters(fields)
        if not _alpha(parameters):
            return read_rope(fields, name, parameters)
        inner = fields.nested(name, parameters)
        inner.get("alpha", _ALPHA)
        for note in ("type", "rope_type"):
            inner.get(note, TEXT, "dynamic")
        for note in _NOTES:
            inner.get(note, NUMBER | NULL, None)
        plain = {key: value for key, value in parameters.items() if key == "rope_theta"}
        inner.get("rope_theta", POSITIVE, 1.0)
        inner.finish()
        return read_rope(fields, name, plain)

    def read_own_fields(self, fields: ConfigFields, head_dim: int) -> dict[str, Any]:
        """Return the biases."""
        return read_attention_bias(fields)

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the biases."""
        return write_attention_bias(config)


def _alpha(parameters: dict[str, Any]) -> float:
    """Return what stretches the base frequency whatever the length of the text; 0: nothing."""
    is_dynamic = parameters.get("rope_type", parameters.get("type")) == "dynamic"
    return parameters.get("alpha") or 0.0 if is_dynamic else 0.0
