"""Rotary position embeddings in `config.json`: the spelling of transformers 4 and that of 5."""

from collections.abc import Mapping
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.io.typed_fields import OBJECT, POSITIVE, TEXT, one_of, whole

LENGTH = "original_max_position_embeddings"
# A scaling -> our fields of it, and theirs.
SCALINGS: Mapping[str, Mapping[str, str]] = {
    "linear": {"rope_factor": "factor"},
    "llama3": {
        "rope_factor": "factor",
        "rope_low_freq_factor": "low_freq_factor",
        "rope_high_freq_factor": "high_freq_factor",
        "rope_original_length": LENGTH,
    },
}


def rope_parameters(fields: ConfigFields) -> tuple[str, dict[str, Any]]:
    """Return the name and the value of the field that scales RoPE.

    transformers 5 writes `rope_parameters`, with the base frequency in it; 4 writes `rope_scaling`
    beside `rope_theta`.

    Raises:
        UserError: One of them is no object, or they differ.
    """
    old = fields.get("rope_scaling", OBJECT) or {}
    new = fields.get("rope_parameters", OBJECT) or {}
    if old and new and old != new:
        raise fields.refusal("rope_scaling", old, "what rope_parameters holds, or nothing")
    return ("rope_parameters", new) if new else ("rope_scaling", old)


def read_rope(fields: ConfigFields, name: str, parameters: Any) -> dict[str, Any]:
    """Return the RoPE fields of our config.

    Args:
        fields: The whole config.json.
        name: The field that `parameters` come from; for messages.
        parameters: What scales RoPE.

    Raises:
        UserError: A value that is not supported, or a parameter that nothing reads.
    """
    fields.expect("partial_rotary_factor", 1.0)
    fields.expect("rope_interleaved", False)
    theta = fields.get("rope_theta", POSITIVE)
    inner = fields.nested(name, parameters)
    values: dict[str, Any] = {"rope_theta": float(inner.get("rope_theta", POSITIVE, theta))}
    inner.expect("partial_rotary_factor", 1.0)
    # Early releases wrote "type" for "rope_type".
    early_scaling = inner.get("type", TEXT, "default")
    scaling = inner.get("rope_type", one_of(("default", *SCALINGS)), early_scaling)
    if scaling in SCALINGS:
        values["rope_scaling"] = scaling
        for ours, theirs in SCALINGS[scaling].items():
            if theirs == LENGTH:
                positions = fields.get("max_position_embeddings", whole(1))
                values[ours] = inner.get(theirs, whole(1, 2**31 - 1), positions)
            else:
                values[ours] = float(inner.get(theirs, POSITIVE))
    elif scaling != "default":
        raise inner.refusal("type", scaling, "'default', 'linear' or 'llama3'")
    if scaling == "llama3" and values["rope_low_freq_factor"] >= values["rope_high_freq_factor"]:
        raise inner.refusal(
            "low_freq_factor", values["rope_low_freq_factor"], "less than high_freq_factor"
        )
    inner.finish()
    return values


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """Return the RoPE fields of a config.json, as transformers 4 spells them."""
    fields: dict[str, Any] = {"rope_theta": config.rope_theta}
    if config.rope_scaling != "none":
        names = SCALINGS[config.rope_scaling]
        numbers = {theirs: getattr(config, ours) for ours, theirs in names.items()}
        fields["rope_scaling"] = {"rope_type": config.rope_scaling} | numbers
    return fields
