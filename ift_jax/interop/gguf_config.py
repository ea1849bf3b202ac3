"""The fields of a GGUF file that describe a model <-> those of a `config.json`."""

from collections.abc import Callable, Mapping
from typing import Any

from ift_jax.errors import UserError
from ift_jax.interop.config_fields import MOST_HEADS, MOST_LAYERS, SIZE
from ift_jax.interop.gguf_architectures import ARCHITECTURES, GgufArchitecture
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

# Their fields, after the architecture's name and a period -> those of a config.json.
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
    "rope.scaling.original_context_length",
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
        UserError: The file is not that of a whole model of a known architecture, or a field of it
            is unknown or has a value that is not supported.
    """
    architecture = ARCHITECTURES[fields.get("general.architecture", one_of(ARCHITECTURES))]
    fields.get("general.type", one_of(("model",)), "model")
    fields.get("split.count", one_of((0, 1)), 0)  # A file of several.
    _check_names(fields, architecture.name)

    def get(name: str, kind: Kind, *default: Any) -> Any:
        return fields.get(f"{architecture.name}.{name}", kind, *default)

    config = {name: get(theirs, kind) for theirs, (name, kind) in FIELD_NAMES.items()}
    n_heads = config["num_attention_heads"]
    head_dim = get("attention.key_length", SIZE, config["hidden_size"] // n_heads)
    for same in ("attention.value_length", "rope.dimension_count"):
        get(same, one_of((head_dim,)), head_dim)
    get("vocab_size", whole(1, MOST_TOKENS), 1)
    return config | {
        "model_type": architecture.model_type,
        "num_key_value_heads": get("attention.head_count_kv", whole(1, MOST_HEADS), n_heads),
        "head_dim": head_dim,
        # Stored in single precision: 1e-05 comes back as 9.999999747378752e-06.
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon', NOT_NEGATIVE):.7g}"),
        "rope_theta": get("rope.freq_base", POSITIVE, 10_000.0),
        "rope_scaling": _scaling(get),
    }


def _check_names(fields: TypedFields, architecture: str) -> None:
    """Refuse a field of the architecture that is neither read nor known to change nothing."""
    known = {*FIELD_NAMES, *_READ}
    for full_name, value in fields.raw.items():
        prefix, _, name = full_name.partition(".")
        if prefix != architecture or name in known:
            continue
        if name not in _HARMLESS:
            raise UserError(f"{fields.where}: {full_name[:60]} = {shown(value)} is not supported")
        fields.check(full_name, value, _HARMLESS[name])


def _scaling(get: Callable[..., Any]) -> dict[str, Any] | None:
    """Return the field `rope_scaling`, as llama.cpp reads its fields.

    A factor without a type is that of linear scaling, and 0 is none. Early files call it
    `scale_linear`.

    Args:
        get: Reads a field of the architecture: its name, kind and default.
    """
    kind = get("rope.scaling.type", one_of(("none", "linear", "yarn")), "linear")
    early_factor = get("rope.scale_linear", NOT_NEGATIVE, 0.0)
    factor = get("rope.scaling.factor", NOT_NEGATIVE, early_factor)
    original_length = get("rope.scaling.original_context_length", whole(0), 0)  # For YaRN alone.
    if kind == "none" or factor in (0, 1):
        return None
    scaling = {"rope_type": kind, "factor": float(factor)}
    if kind == "yarn" and original_length:
        scaling["original_max_position_embeddings"] = original_length
    return scaling


def model_fields(config: Mapping[str, Any], architecture: GgufArchitecture) -> dict[str, Any]:
    """Return a file's fields of a model; `config_fields` reads them.

    Llama 3's RoPE scaling has no field: it is a tensor (`gguf_rope`).

    Args:
        config: The fields of its `config.json`, as an export writes them.
        architecture: The architecture of the file.

    Raises:
        UserError: RoPE is scaled in a way that a file cannot hold.
    """
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    values = {theirs: config[name] for theirs, (name, _) in FIELD_NAMES.items()}
    values |= {
        "vocab_size": config["vocab_size"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.dimension_count": head_dim,
        "rope.freq_base": float(config["rope_theta"]),
    }
    scaling = config.get("rope_scaling") or {"rope_type": "none"}
    kind = scaling["rope_type"]
    if kind in ("linear", "yarn"):
        values["rope.scaling.type"] = kind
        values["rope.scaling.factor"] = float(scaling["factor"])
    elif kind not in ("none", "llama3"):
        raise UserError(
            f"config.model.rope_scaling is {kind}, which a GGUF file cannot hold; expected none, "
            "linear, llama3 or yarn"
        )
    if kind == "yarn":
        length = scaling["original_max_position_embeddings"]
        values["rope.scaling.original_context_length"] = length
    return {f"{architecture.name}.{name}": value for name, value in values.items()}


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


def sampling_fields(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's sampling defaults; `generation_defaults` reads them.

    Args:
        defaults: The fields of a `generation_config.json`; those that a file has no place for are
            left out.
    """
    fields: dict[str, Any] = {}
    for theirs, (name, _) in _SAMPLING.items():
        value = defaults.get(name)
        if value is not None:
            fields[f"general.sampling.{theirs}"] = value if name == "top_k" else float(value)
    if defaults.get("do_sample") is False:
        return {"general.sampling.temp": 0.0}  # llama.cpp's greedy decoding.
    return fields
