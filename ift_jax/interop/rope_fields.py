"""Rotary position embeddings in `config.json`: the spelling of transformers 4 and that of 5."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.layer_types import GLOBAL, LOCAL
from ift_jax.io.typed_fields import FLAG, NULL, OBJECT, POSITIVE, TEXT, Kind, list_of, one_of, whole

LENGTH = "original_max_position_embeddings"
_FRACTION = Kind("a number above 0, at most 1", lambda v: POSITIVE.accepts(v) and v <= 1)


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


def read_rope(
    fields: ConfigFields, name: str, parameters: Any, *, in_part: bool = False
) -> dict[str, Any]:
    """Return the RoPE fields of our config, all but `rope_dim`.

    Args:
        fields: The whole config.json.
        name: The field that `parameters` come from; for messages.
        parameters: What scales RoPE.
        in_part: Whether the family may rotate a part of each head, see `read_rotated_part`.

    Raises:
        UserError: A value that is not supported, or a parameter that nothing reads.
    """
    fields.expect("rope_interleaved", False)
    theta = fields.get("rope_theta", POSITIVE)
    inner = fields.nested(name, parameters)
    values: dict[str, Any] = {"rope_theta": float(inner.get("rope_theta", POSITIVE, theta))}
    if in_part:  # `read_rotated_part` uses it.
        inner.get("partial_rotary_factor", _FRACTION | NULL, None)
    else:
        fields.expect("partial_rotary_factor", 1.0)
        inner.expect("partial_rotary_factor", 1.0)
    # Early releases wrote "type" for "rope_type".
    early_scaling = inner.get("type", TEXT, "default")
    scaling = inner.get("rope_type", one_of(("default", *_READERS)), early_scaling)
    if scaling in _READERS:
        values |= {"rope_scaling": scaling, **_READERS[scaling](fields, inner)}
    elif scaling != "default":
        known = ", ".join(repr(name) for name in ("default", *_READERS))
        raise inner.refusal("type", scaling, f"one of {known}")
    inner.finish()
    return values


def read_rope_by_layer_type(fields: ConfigFields, *, local_theta: float) -> dict[str, Any]:
    """Return the RoPE fields of a family whose local layers have angles of their own.

    transformers 5 writes an object for each type of layer into `rope_parameters`. What 4 writes is
    meant for the global layers.

    Args:
        fields: The whole config.json.
        local_theta: The base frequency of local layers whose object does not hold it.

    Raises:
        UserError: As for `read_rope`, or the local layers' RoPE is scaled.
    """
    name, parameters = rope_parameters(fields)
    if name == "rope_parameters" and parameters:
        if not parameters.keys() <= {GLOBAL, LOCAL}:
            raise fields.refusal(name, parameters, f"one object for {GLOBAL}, one for {LOCAL}")
        local = fields.nested(f"{name}.{LOCAL}", parameters.get(LOCAL, {}))
        local.expect("rope_type", "default")
        local.expect("partial_rotary_factor", 1.0)
        local_theta = local.get("rope_theta", POSITIVE, local_theta)
        local.finish()
        name, parameters = f"{name}.{GLOBAL}", parameters.get(GLOBAL, {})
    return read_rope(fields, name, parameters) | {"rope_local_theta": float(local_theta)}


def _read_factor(fields: ConfigFields, inner: ConfigFields) -> dict[str, Any]:
    """Read "linear", and "dynamic", which changes nothing within the model's positions."""
    return {"rope_factor": float(inner.get("factor", POSITIVE))}


def _read_original_length(fields: ConfigFields, inner: ConfigFields) -> int:
    positions = fields.get("max_position_embeddings", whole(1))
    length: int = inner.get(LENGTH, whole(1, 2**31 - 1), positions)
    return length


def _read_llama3(fields: ConfigFields, inner: ConfigFields) -> dict[str, Any]:
    low = float(inner.get("low_freq_factor", POSITIVE))
    high = float(inner.get("high_freq_factor", POSITIVE))
    if low >= high:
        raise inner.refusal("low_freq_factor", low, "less than high_freq_factor")
    return {
        "rope_factor": float(inner.get("factor", POSITIVE)),
        "rope_low_freq_factor": low,
        "rope_high_freq_factor": high,
        "rope_original_length": _read_original_length(fields, inner),
    }


def _read_yarn(fields: ConfigFields, inner: ConfigFields) -> dict[str, Any]:
    """Read YaRN; the factor on queries and keys follows from others if it is not given."""
    length = _read_original_length(fields, inner)
    positions = fields.get("max_position_embeddings", whole(1))
    factor = float(inner.get("factor", POSITIVE | NULL) or positions / length)
    on_attention = inner.get("attention_factor", POSITIVE | NULL, None)
    mscale = inner.get("mscale", POSITIVE | NULL, None)
    mscale_all = inner.get("mscale_all_dim", POSITIVE | NULL, None)
    if on_attention is None:
        on_attention = _yarn_mscale(factor, 1.0)
        if mscale and mscale_all:
            on_attention = _yarn_mscale(factor, mscale) / _yarn_mscale(factor, mscale_all)
    fast = float(inner.get("beta_fast", POSITIVE | NULL, None) or 32)
    slow = float(inner.get("beta_slow", POSITIVE | NULL, None) or 1)
    if fast < slow:
        raise inner.refusal("beta_fast", fast, "at least beta_slow")
    return {
        "rope_factor": factor,
        "rope_attention_factor": float(on_attention),
        "rope_beta_fast": fast,
        "rope_beta_slow": slow,
        "rope_truncate": inner.get("truncate", FLAG, True),
        "rope_original_length": length,
    }


def _yarn_mscale(factor: float, mscale: float) -> float:
    """Return the factor on queries and keys that YaRN recommends (arXiv:2309.00071, eq. 22)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _read_longrope(fields: ConfigFields, inner: ConfigFields) -> dict[str, Any]:
    """Read LongRoPE; the factor on queries and keys follows from the lengths if it is not given."""
    length = _read_original_length(fields, inner)
    positions = fields.get("max_position_embeddings", whole(1))
    factor = inner.get("factor", POSITIVE | NULL, None) or positions / length
    on_attention = inner.get("attention_factor", POSITIVE | NULL, None)
    if on_attention is None:
        stretched = factor > 1 and length > 1
        on_attention = math.sqrt(1 + math.log(factor) / math.log(length)) if stretched else 1.0
    return {
        "rope_attention_factor": float(on_attention),
        "rope_short_factors": tuple(map(float, inner.get("short_factor", list_of(POSITIVE)))),
        "rope_long_factors": tuple(map(float, inner.get("long_factor", list_of(POSITIVE)))),
        "rope_original_length": length,
    }


_READERS: Mapping[str, Callable[[ConfigFields, ConfigFields], dict[str, Any]]] = {
    "linear": _read_factor,
    "dynamic": _read_factor,
    "llama3": _read_llama3,
    "yarn": _read_yarn,
    "longrope": _read_longrope,
}
# A scaling -> our fields of it, and theirs.
_WRITTEN: Mapping[str, Mapping[str, str]] = {
    "linear": {"rope_factor": "factor"},
    "dynamic": {"rope_factor": "factor"},
    "llama3": {
        "rope_factor": "factor",
        "rope_low_freq_factor": "low_freq_factor",
        "rope_high_freq_factor": "high_freq_factor",
        "rope_original_length": LENGTH,
    },
    "yarn": {
        "rope_factor": "factor",
        "rope_attention_factor": "attention_factor",
        "rope_beta_fast": "beta_fast",
        "rope_beta_slow": "beta_slow",
        "rope_truncate": "truncate",
        "rope_original_length": LENGTH,
    },
    "longrope": {
        "rope_attention_factor": "attention_factor",
        "rope_short_factors": "short_factor",
        "rope_long_factors": "long_factor",
        "rope_original_length": LENGTH,
    },
    "proportional": {"rope_proportion": "partial_rotary_factor", "rope_factor": "factor"},
}


def write_rope(config: DecoderConfig) -> dict[str, Any]:
    """Return the RoPE fields of a config.json, as transformers 4 spells them."""
    fields: dict[str, Any] = {"rope_theta": config.rope_theta}
    if config.rope_scaling != "none":
        fields["rope_scaling"] = written_scaling(config)
    return fields


def written_scaling(config: DecoderConfig) -> dict[str, Any]:
    """Return what scales RoPE, as an object of a config.json."""
    names = _WRITTEN[config.rope_scaling]
    values = {theirs: getattr(config, ours) for ours, theirs in names.items()}
    for name, value in values.items():
        values[name] = list(value) if isinstance(value, tuple) else value
    return {"rope_type": config.rope_scaling} | values


def read_rotated_part(
    fields: ConfigFields, parameters: dict[str, Any], head_dim: int, default: float
) -> dict[str, Any]:
    """Return our field `rope_dim`, for a family whose heads may be rotated in part.

    Args:
        fields: The whole config.json.
        parameters: What scales RoPE, and in transformers 5 may hold the part that is rotated.
        head_dim: The width of a head.
        default: The part if `config.json` does not say it.

    Raises:
        UserError: The part is no fraction, or gives no even number of dimensions.
    """
    outside = fields.get("partial_rotary_factor", _FRACTION, default)
    inside = parameters.get("partial_rotary_factor")
    part = outside if inside is None else inside
    fields.check("partial_rotary_factor", part, _FRACTION)
    n_rotated = int(head_dim * part)
    if n_rotated % 2 or not n_rotated:
        raise fields.refusal(
            "partial_rotary_factor", part, f"an even part of the {head_dim} dimensions of a head"
        )
    return {"rope_dim": 0 if n_rotated == head_dim else n_rotated}


def write_rotated_part(config: DecoderConfig) -> dict[str, Any]:
    """Return the field `partial_rotary_factor`."""
    n_rotated = config.rope_dim or config.head_dim
    part = n_rotated / config.head_dim
    if int(config.head_dim * part) != n_rotated:  # Rounding went below the whole number.
        part = (n_rotated + 0.5) / config.head_dim
    return {"partial_rotary_factor": part}
