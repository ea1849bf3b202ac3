"""The fields of a GGUF file that describe a Llama model, as those of a `config.json`."""

from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError
from ift_jax.interop.config_fields import MOST_HEADS, MOST_LAYERS, SIZE
from ift_jax.io.typed_fields import (
    FLAG,
    NOT_NEGATIVE,
    POSITIVE,
    Kind,
    TypedFields,
    one_of,
    shown,
    whole,
)
from ift_jax.text.tokenizers.base import MOST_TOKENS

# Their fields, which begin with "llama." -> those of a config.json.
FIELD_NAMES: Mapping[str, tuple[str, Kind]] = {
    "embedding_length": ("hidden_size", SIZE),
    "feed_forward_length": ("intermediate_size", SIZE),
    "block_count": ("num_hidden_layers", whole(1, MOST_LAYERS)),
    "attention.head_count": ("num_attention_heads", whole(1, MOST_HEADS)),
    "context_length": ("max_position_embeddings", whole(1, 2**31 - 1)),
}
# Fields that are read below.
_READ = (
    "vocab_size",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
)
# Fields that change nothing as long as they hold such a value; llama.cpp reads no others in a file
# of this architecture.
_NOTHING = one_of((0, 0.0, False))
_HARMLESS: Mapping[str, Kind] = {
    "use_parallel_residual": _NOTHING,
    "tensor_data_layout": one_of(("Meta AI original pth",)),  # The layout of every such file.
    "expert_count": _NOTHING,
    "expert_used_count": _NOTHING,
    "attention.causal": one_of((True,)),
    "attention.sliding_window": _NOTHING,
    "rope.scaling.attn_factor": one_of((1.0, 1)),
    "rope.scaling.finetuned": FLAG,
    "rope.scaling.original_context_length": whole(0),  # Only YaRN reads it.
}
# llama.cpp's sampling defaults -> those of a generation_config.json.
_SAMPLING: Mapping[str, tuple[str, Kind]] = {
    "top_k": ("top_k", whole(0, 2**31 - 1)),
    "top_p": ("top_p", NOT_NEGATIVE),
    "min_p": ("min_p", NOT_NEGATIVE),
    "temp": ("temperature", NOT_NEGATIVE),
    "penalty_repeat": ("repetition_penalty", POSITIVE),
}


def config_fields(fields: TypedFields) -> dict[str, Any]:
    """Return the fields of a `config.json`, except those that the tensors decide.

    Args:
        fields: The fields of the file.

    Raises:
        UserError: The file is not that of a whole Llama model, or a field of it is unknown or has
            a value that is not supported.
    """
    fields.get("general.architecture", one_of(("llama",)))
    fields.get("general.type", one_of(("model",)), "model")
    fields.get("split.count", one_of((0, 1)), 0)  # A file of several.
    _check_names(fields)

    def get(name: str, kind: Kind, *default: Any) -> Any:
        return fields.get(f"llama.{name}", kind, *default)

    config = {name: get(theirs, kind) for theirs, (name, kind) in FIELD_NAMES.items()}
    n_heads = config["num_attention_heads"]
    head_dim = get("attention.key_length", SIZE, config["hidden_size"] // n_heads)
    for same in ("attention.value_length", "rope.dimension_count"):
        get(same, one_of((head_dim,)), head_dim)
    get("vocab_size", whole(1, MOST_TOKENS), 1)
    return config | {
        "model_type": "llama",
        "num_key_value_heads": get("attention.head_count_kv", whole(1, MOST_HEADS), n_heads),
        "head_dim": head_dim,
        # Stored in single precision: 1e-05 comes back as 9.999999747378752e-06.
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon', NOT_NEGATIVE):.7g}"),
        "rope_theta": get("rope.freq_base", POSITIVE, 10_000.0),
        "rope_scaling": _linear_scaling(fields),
    }


def _check_names(fields: TypedFields) -> None:
    """Refuse a field of the architecture that is neither read nor known to change nothing."""
    known = {*FIELD_NAMES, *_READ}
    for full_name, value in fields.raw.items():
        prefix, _, name = full_name.partition(".")
        if prefix != "llama" or name in known:
            continue
        if name not in _HARMLESS:
            raise UserError(f"{fields.where}: {full_name[:60]} = {shown(value)} is not supported")
        fields.check(full_name, value, _HARMLESS[name])


def _linear_scaling(fields: TypedFields) -> dict[str, Any] | None:
    """Return the field `rope_scaling`, as llama.cpp reads its fields.

    A factor without a type is that of linear scaling, and 0 is none. Early files call it
    `scale_linear`.
    """
    kind = fields.get("llama.rope.scaling.type", one_of(("none", "linear")), "linear")
    early_factor = fields.get("llama.rope.scale_linear", NOT_NEGATIVE, 0.0)
    factor = fields.get("llama.rope.scaling.factor", NOT_NEGATIVE, early_factor)
    if kind == "none" or factor in (0, 1):
        return None
    return {"rope_type": "linear", "factor": float(factor)}


def generation_defaults(fields: TypedFields) -> dict[str, Any]:
    """Return the sampling defaults of the file, as a `generation_config.json` spells them.

    Raises:
        UserError: One is of a wrong type.
    """
    defaults: dict[str, Any] = {}
    for theirs, (name, kind) in _SAMPLING.items():
        value = fields.get(f"general.sampling.{theirs}", kind, None)
        if value is not None:
            # Stored in single precision: 0.7 comes back as 0.699999988079071.
            defaults[name] = float(f"{value:.7g}") if isinstance(value, float) else value
    if defaults.get("temperature", 1.0) == 0:
        del defaults["temperature"]  # llama.cpp's greedy decoding.
        return defaults | {"do_sample": False}
    return defaults | {"do_sample": True} if defaults else {}
