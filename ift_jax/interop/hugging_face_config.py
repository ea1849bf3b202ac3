"""`config.json` of Hugging Face folders <-> the model sections of our configs.

A family is what its relatives share with Llama or T5 and what they change. Every field of a
`config.json` is read, is known not to matter here, or is refused by name and value.
"""

import dataclasses
import importlib.resources
import tomllib
from typing import Any

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig, ModelConfig
from ift_jax.errors import UserError

# Fields of ours that are not part of the model: a run sets them as it likes.
FREE = ("init_from", "dropout", "dropout_schedule", "dtype", "remat", "attention")

_FILE = importlib.resources.files(__package__) / "hugging_face_config.toml"
_TABLES = tomllib.loads(_FILE.read_text("utf-8"))
_ACTIVATIONS, _DECODER, _T5 = _TABLES["activations"], _TABLES["decoder"], _TABLES["t5"]
_SCALING, _DEFAULTS = _TABLES["scaling"], _TABLES["defaults"]
_IRRELEVANT = frozenset(_TABLES["irrelevant"])  # Fields that change no logits.
_KINDS = {"sliding_attention": True, "full_attention": False}  # Whether a layer is local.


@dataclasses.dataclass(frozen=True)
class _Family:
    """A decoder family: what of our config it fixes, and which fields of theirs it reads."""

    architecture: str
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)
    attention_bias: bool = True  # Has that field (of all four projections).
    mlp_bias: bool = False
    local: str = "none"  # "none", "all", "switched" (Qwen) or "some" (Gemma).

    @property
    def gemma(self) -> bool:
        return self.local == "some"

    @property
    def activation(self) -> str:
        return "hidden_activation" if self.gemma else "hidden_act"


_FAMILIES = {kind: _Family(**fields) for kind, fields in _TABLES["families"].items()}
_T5S = ("t5", "mt5")
_MISSING: Any = object()


class _Fields:
    """The fields of a config.json; remembers which were read."""

    def __init__(self, fields: dict[str, Any], where: str):
        self.fields, self.where, self._read = fields, where, set[str]()

    def take(self, name: str, default: Any = _MISSING) -> Any:
        """The value of a field; null and absent are the default."""
        self._read.add(name)
        value = self.fields.get(name)
        if value is None and default is _MISSING:
            raise UserError(f"{self.where}: no field {name!r}; expected one in this family")
        return default if value is None else value

    def number(self, name: str, default: Any = _MISSING) -> Any:
        """As `take`, and a number."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refused(name, value, "a number")
        return value

    def numbers(self, names: dict[str, str], **defaults: Any) -> dict[str, Any]:
        """Ours -> the value of each of these fields."""
        of = _DEFAULTS | defaults
        return {ours: self.number(name, of.get(name, _MISSING)) for ours, name in names.items()}

    def only(self, name: str, *allowed: Any, default: Any = _MISSING) -> Any:
        """As `take`, and one of these."""
        value = self.take(name, allowed[0] if default is _MISSING else default)
        if value not in allowed:
            raise self.refused(name, value, " or ".join(map(repr, allowed)))
        return value

    def refused(self, name: str, value: Any, expected: str) -> UserError:
        return UserError(f"{self.where}: {name} is {value!r}; expected {expected}")

    def finish(self) -> None:
        """Refuses the fields that nothing read."""
        for name, value in self.fields.items():
            if name not in self._read and name not in _IRRELEVANT and value not in (None, False):
                kind = self.fields["model_type"]
                raise UserError(
                    f"{self.where}: {name} = {value!r} is not supported; {kind} models "
                    "are read without that field"
                )


def from_hugging_face(fields: dict[str, Any], where: str) -> ModelConfig:
    """Our config of a model from its `config.json`, in transformers 4's spelling or 5's.

    Raises:
        UserError: another family, or a field or value that is not supported, by name; `where` is
            what the message calls the object.
    """
    read = _Fields(fields, where)
    kind: Any = fields.get("model_type")
    if kind not in (*_FAMILIES, *_T5S):
        hint = ""
        if kind == "gemma3" or "text_config" in fields:
            hint = " (models of text and images are not; a text-only one is 'gemma3_text')"
        supported = ", ".join([*_FAMILIES, *_T5S])
        raise UserError(f"{where}: model_type is {kind!r}; supported are {supported}{hint}")
    config = _read_t5(read, kind) if kind in _T5S else _read_decoder(read, kind)
    read.finish()
    return config


def _read_t5(read: _Fields, kind: str) -> EncoderDecoderConfig:
    activation = read.only("feed_forward_proj", "relu", "gated-gelu")
    pad, start = read.fields.get("pad_token_id", 0), read.fields.get("decoder_start_token_id")
    if start is not None and start != pad:
        raise read.refused("decoder_start_token_id", start, f"the pad_token_id {pad}")
    # transformers 5 always writes that the embedding is tied; what it scales tells. mt5 never does.
    tied = read.only("tie_word_embeddings", True, False)
    scaled = read.only("scale_decoder_outputs", True, False, default=tied) and kind == "t5"
    numbers = read.numbers(_T5, num_decoder_layers=read.fields.get("num_layers", _MISSING))
    values = numbers | dict(activation=activation.replace("-", "_"), tied_embedding=scaled)
    return EncoderDecoderConfig(**values)


def _read_decoder(read: _Fields, kind: str) -> DecoderConfig:
    family = _FAMILIES[kind]
    heads, width = read.number("num_attention_heads"), read.number("hidden_size")
    numbers = read.numbers(_DECODER, num_key_value_heads=heads, head_dim=width // max(heads, 1))
    values = family.fixed | numbers
    default = "gelu_pytorch_tanh" if family.gemma else "silu"
    activation = read.only(family.activation, *_ACTIVATIONS, default=default)
    if family.gemma:
        read.take("hidden_act", None)  # Of early releases beside the other, which is used.
        scalar = read.number("query_pre_attn_scalar")
        values["query_scale"] = 0.0 if scalar == values["head_dim"] else scalar**-0.5
        values["attention_softcap"] = float(read.number("attn_logit_softcapping", 0.0))
        values["final_softcap"] = float(read.number("final_logit_softcapping", 0.0))
        read.only("use_bidirectional_attention", False)
    if family.attention_bias:
        bias = read.only("attention_bias", False, True)
        values["qkv_bias"] = values["output_bias"] = bias
    if family.mlp_bias:
        values["mlp_bias"] = read.only("mlp_bias", False, True)
    values["sliding_window"], values["global_every"] = _windows(read, family, values["n_layers"])
    values |= _rope(read, kind)
    if values["sliding_window"] and values.get("rope_scaling") and kind != "gemma3_text":
        raise read.refused("sliding_window", values["sliding_window"], "none beside scaled RoPE")
    tied = read.only("tie_word_embeddings", True, False, default=family.gemma)
    return DecoderConfig(**values, activation=_ACTIVATIONS[activation], tied_embedding=tied)


def _windows(read: _Fields, family: _Family, n_layers: int) -> tuple[int, int]:
    """(sliding_window, global_every) from what says which layers are local."""
    window = 0 if family.local == "none" else read.number("sliding_window", 0)
    pattern = read.take("sliding_window_pattern", read.fields.get("_sliding_window_pattern"))
    if family.local == "switched" and not read.only("use_sliding_window", False, True):
        window = 0
    first = read.fields.get("max_window_layers", 0) if family.local == "switched" else 0
    local = [bool(window) and i >= first for i in range(n_layers)]
    if family.gemma:
        every = pattern or (6 if "gemma3" in read.fields["model_type"] else 2)
        local = [bool(window) and (i + 1) % every != 0 for i in range(n_layers)]
    names = read.take("layer_types", None)
    if names is not None:
        if len(names) != n_layers or not set(names) <= set(_KINDS):
            raise read.refused("layer_types", names, f"{n_layers} of {', '.join(_KINDS)}")
        local = [_KINDS[name] for name in names]
        if any(local) and not window:
            raise read.refused("sliding_window", window, "a number, as layer_types has local ones")
    if not any(local):
        return 0, 0
    if all(local):
        return window, 0
    every = local.index(False) + 1
    if local != [(i + 1) % every != 0 for i in range(n_layers)]:
        raise read.refused("layer_types", names or local, "every n-th layer to be global")
    return window, every


def _rope(read: _Fields, kind: str) -> dict[str, Any]:
    """The rope fields of ours, from transformers 4's spelling or 5's."""
    read.only("partial_rotary_factor", 1.0, 1)
    read.only("rope_interleaved", False)
    theta = read.number("rope_theta", 1e6 if kind == "gemma3_text" else 1e4)
    values: dict[str, Any] = {}
    old, new = read.take("rope_scaling", {}), read.take("rope_parameters", {})
    name, parameters = ("rope_parameters", new) if new else ("rope_scaling", old)
    if kind == "gemma3_text":
        local_theta = read.number("rope_local_base_freq", 1e4)
        if "full_attention" in parameters:
            near = _Fields(parameters.get("sliding_attention") or {}, f"{read.where}: {name}")
            near.only("rope_type", "default")
            local_theta = near.number("rope_theta", local_theta)
            parameters = parameters["full_attention"]
        values["rope_local_theta"] = float(local_theta)
    inner = _Fields(parameters | {"model_type": kind}, f"{read.where}: {name}")
    values["rope_theta"] = float(inner.number("rope_theta", theta))
    inner.only("partial_rotary_factor", 1.0, 1)
    scaling = inner.take("rope_type", parameters.get("type") or "default")
    inner.take("type", None)
    if scaling in _SCALING:
        numbers = inner.numbers(_SCALING[scaling])
        typed = {name: type(getattr(DecoderConfig, name))(n) for name, n in numbers.items()}
        values |= typed | {"rope_scaling": scaling}
    elif scaling != "default":
        raise inner.refused("rope_type", scaling, "'default', 'linear' or 'llama3'")
    inner.finish()
    return values


def to_hugging_face(config: ModelConfig, max_length: int = 0) -> dict[str, Any]:
    """The `config.json` of a model: that of the first family that gives the config back.

    Its vocabulary is resolved; `max_length` is max_position_embeddings where it has no bound.

    Raises:
        UserError: no family has this combination; names the fields that the nearest one has not.
    """
    if isinstance(config, EncoderDecoderConfig):
        kinds = {"t5": _write_t5(config)}
    else:
        config = dataclasses.replace(config, max_length=config.max_length or max_length or 2048)
        kinds = {kind: _write_decoder(config, kind) for kind in _FAMILIES}
    found = []
    for kind, fields in kinds.items():
        try:
            different = _differences(config, from_hugging_face(fields, kind))
        except UserError:
            continue
        if not different:
            return fields
        found.append([f"{name} (of {kind} models: {value!r})" for name, value in different])
    nearest = min(found, key=len, default=["rope_scaling beside sliding_window"])
    raise UserError(
        "config.model: no Hugging Face family has this combination; what the nearest "
        f"has not: {', '.join(nearest)}"
    )


def _differences(config: ModelConfig, other: ModelConfig) -> list[tuple[str, Any]]:
    """Fields of the model, and the other's values, in which two configs differ."""
    ours, theirs = dataclasses.asdict(config), dataclasses.asdict(other)
    if isinstance(config, DecoderConfig):
        for fields in (ours, theirs):  # What does not show where there is no local layer.
            if not fields["sliding_window"]:
                fields["rope_local_theta"] = 0.0
            if fields["query_scale"] == fields["head_dim"] ** -0.5:
                fields["query_scale"] = 0.0
    return [(n, theirs[n]) for n in ours if n not in FREE and ours[n] != theirs[n]]


def _write_t5(c: EncoderDecoderConfig) -> dict[str, Any]:
    return {theirs: getattr(c, ours) for ours, theirs in _T5.items()} | {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "feed_forward_proj": c.activation.replace("_", "-"),
        "tie_word_embeddings": c.tied_embedding,
    }


def _write_decoder(c: DecoderConfig, kind: str) -> dict[str, Any]:
    """In transformers 4's spelling, which 5 reads as well."""
    family = _FAMILIES[kind]
    activation = {ours: name for name, ours in _ACTIVATIONS.items()}[c.activation]
    fields: dict[str, Any] = {theirs: getattr(c, ours) for ours, theirs in _DECODER.items()} | {
        "model_type": kind,
        "architectures": [family.architecture],
        family.activation: activation,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied_embedding,
    }
    if c.rope_scaling != "none":
        scaling = {theirs: getattr(c, ours) for ours, theirs in _SCALING[c.rope_scaling].items()}
        fields["rope_scaling"] = {"rope_type": c.rope_scaling} | scaling
    if family.attention_bias:
        fields["attention_bias"] = c.qkv_bias
    if family.mlp_bias:
        fields["mlp_bias"] = c.mlp_bias
    if family.local != "none":
        fields["sliding_window"] = c.sliding_window or None
    if family.local in ("switched", "some"):
        every = c.global_every or c.n_layers + 1
        local = [bool(c.sliding_window) and i % every != 0 for i in range(1, c.n_layers + 1)]
        names = {is_local: name for name, is_local in _KINDS.items()}
        fields["layer_types"] = [names[is_local] for is_local in local]
    if family.local == "switched":
        fields |= {"use_sliding_window": bool(c.sliding_window), "max_window_layers": 0}
    if family.gemma:
        scalar = (c.query_scale or c.head_dim**-0.5) ** -2
        whole = abs(scalar - round(scalar)) < 1e-9
        fields["query_pre_attn_scalar"] = round(scalar) if whole else scalar
        fields["attn_logit_softcapping"] = c.attention_softcap or None
        fields["final_logit_softcapping"] = c.final_softcap or None
        fields["sliding_window"] = c.sliding_window or c.max_length
    if kind == "gemma3_text":
        fields["rope_local_base_freq"] = c.rope_local_theta or c.rope_theta
    return fields
