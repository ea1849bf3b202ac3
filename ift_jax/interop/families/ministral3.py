"""Ministral 3: Mistral with YaRN, and queries that grow with the position."""

from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.families.mistral import Mistral
from ift_jax.interop.model_family import register_family
from ift_jax.interop.rope_fields import LENGTH, read_rope, rope_parameters, written_scaling
from ift_jax.io.typed_fields import ANYTHING, NOT_NEGATIVE, whole

_BETA = "llama_4_scaling_beta"
_DEFAULT_ROPE: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    LENGTH: 16_384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    _BETA: 0.1,
}


@register_family
class Ministral3(Mistral):
    """The queries' growth is a parameter of RoPE there."""

    model_type = "ministral3"
    architecture = "Ministral3ForCausalLM"
    export_rank = 2
    defaults = Mistral.defaults | {
        "head_dim": 128,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    }
    nullable = Mistral.nullable - {"head_dim"}

    def read_rope(self, fields: ConfigFields) -> dict[str, Any]:
        """Return the RoPE fields, and the growth of the queries with the position."""
        name, parameters = rope_parameters(fields)
        parameters = dict(parameters or _DEFAULT_ROPE)
        inner = fields.nested(name, parameters)
        beta = float(inner.get(_BETA, NOT_NEGATIVE))
        inner.get("max_position_embeddings", ANYTHING, None)  # A note.
        for read in (_BETA, "max_position_embeddings"):
            parameters.pop(read, None)
        scaling = parameters.get("rope_type", parameters.get("type", "default"))
        if scaling in ("llama3", "yarn"):
            return read_rope(fields, name, parameters) | {"query_beta": beta}
        length = inner.get(LENGTH, whole(1, 2**31 - 1))  # This length concerns the queries alone.
        del parameters[LENGTH]
        values = read_rope(fields, name, parameters)
        return values | {"query_beta": beta, "rope_original_length": length}

    def write_own_fields(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the window, and RoPE with the growth of the queries."""
        scaling = {"rope_type": "default"}
        if config.rope_scaling != "none":
            scaling = written_scaling(config)
        own = {
            "rope_theta": config.rope_theta,
            LENGTH: config.rope_original_length,
            _BETA: config.query_beta,
        }
        return super().write_own_fields(config) | {
            "rope_scaling": None,
            "rope_parameters": scaling | own,
        }
