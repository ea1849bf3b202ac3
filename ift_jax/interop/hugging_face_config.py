"""`config.json` of Hugging Face folders <-> the model section of our configs."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ift_jax.config.checks import check
from ift_jax.config.schema import Config, DecoderConfig, EncoderDecoderConfig, ModelConfig
from ift_jax.errors import UserError, did_you_mean
from ift_jax.interop import families as families  # Importing it registers the families.
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.model_family import ModelFamily, registered_families
from ift_jax.interop.text_part import TEXT_FAMILIES
from ift_jax.io.typed_fields import shown

# Fields of ours that are not part of the model: a run sets them as it likes.
FREE = ("init_from", "dropout", "dropout_schedule", "dtype", "remat", "attention")

# The positions of an exported model whose config has no bound.
DEFAULT_POSITIONS = 2048
# How near a model type must be to be taken for one of ours: types of other models are as near as
# 0.8 ("hunyuan_v1_moe" to "hunyuan_v1_dense").
_MISSPELLED = 0.85
# Model types that a message names.
_FREQUENT = ("llama", "qwen3", "qwen3_5_text", "gemma4_text", "gpt_oss", "mistral", "t5")


def family_of_fields(fields: dict[str, Any], where: str) -> ModelFamily[Any]:
    """Return the family that a `config.json` names; `where` is what messages call the file.

    Raises:
        UserError: The family is not supported.
    """
    named = fields.get("model_type")
    for family in registered_families():
        if family.model_type == named:
            return family
    types = [*sorted(family.model_type for family in registered_families()), *TEXT_FAMILIES]
    raise UserError(
        f"{where}: model_type is {shown(named)}; expected one of the {len(types)} that "
        f"docs/model_types.md lists as read, such as {', '.join(_FREQUENT)}{_spelled(named, types)}"
    )


def _spelled(named: Any, types: Sequence[str]) -> str:
    """Return which type a misspelled one may be; never a sibling, as gemma3 is of gemma3n."""
    if not isinstance(named, str):
        return ""
    name = named.lower()
    others = [each for each in types if not _extends(name, each) and not _extends(each, name)]
    return did_you_mean(name, others, cutoff=_MISSPELLED)


def _extends(name: str, beginning: str) -> bool:
    """Whether a name is another one with a number or a part more; a letter more is a slip."""
    rest = name.removeprefix(beginning)
    return bool(rest) and rest != name and not (beginning[-1] + rest).isalpha()


def from_hugging_face(fields: dict[str, Any], where: str) -> ModelConfig:
    """Return our config of a model.

    Every field is read, is known to change no logits, or is refused by name and value.

    Args:
        fields: The content of `config.json`, as transformers 4 or 5 writes it.
        where: What messages call the file.

    Raises:
        UserError: The family, a field or a value is not supported.
    """
    family = family_of_fields(fields, where)
    reader = ConfigFields(
        fields,
        where,
        model_type=family.model_type,
        defaults=family.defaults,
        nullable=family.nullable,
        ignored=family.ignored,
    )
    config = family.read(reader)
    reader.finish()
    try:
        check(Config(model=config))
    except UserError as error:  # A field of ours is out of bounds because of one of theirs.
        raise UserError(f"{where}: {error}") from error
    return config


class HuggingFaceModel(NamedTuple):
    """A model as a Hugging Face folder would describe it.

    Attributes:
        family: The family that the model belongs to.
        fields: The content of its `config.json`.
    """

    family: ModelFamily[Any]
    fields: dict[str, Any]


def to_hugging_face(
    config: ModelConfig, max_length: int = 0, model_type: str = ""
) -> HuggingFaceModel:
    """Return a model's family and `config.json`: the first family that gives the config back.

    Args:
        config: A model's config with its vocabulary resolved.
        max_length: The positions of a model whose config has no bound; 0: DEFAULT_POSITIONS.
        model_type: The family that is tried first: the one that the model was read as.

    Raises:
        UserError: No family has this combination of fields; names those in which the nearest
            families differ.
    """
    config = with_positions(config, max_length)
    candidates: list[tuple[ModelFamily[Any], dict[str, Any]]] = []
    families = registered_families()
    families.sort(key=lambda family: family.model_type != model_type)
    for family in families:
        if not isinstance(config, family.config_class):
            continue
        fields = family.write(config)
        try:
            read_back = from_hugging_face(fields, family.model_type)
        except UserError:
            continue
        different = differences(config, read_back)
        if not different:
            return HuggingFaceModel(family, fields)
        candidates.append((family, different))
    raise UserError(
        "config.model: no Hugging Face family has this combination of fields; "
        f"the nearest differs in {_nearest(candidates)}"
    )


def with_positions(config: ModelConfig, max_length: int) -> ModelConfig:
    """Return a config in which a model with RoPE and no bound has one, as a `config.json` must.

    Args:
        config: A model's config.
        max_length: The bound; 0: DEFAULT_POSITIONS.
    """
    has_rope = isinstance(config, DecoderConfig) or config.block == "gemma"
    if has_rope and not config.max_length:
        return dataclasses.replace(config, max_length=max_length or DEFAULT_POSITIONS)
    return config


def _nearest(candidates: list[tuple[ModelFamily[Any], dict[str, Any]]]) -> str:
    """Describe the families that differ from a config in the fewest fields."""
    if not candidates:
        return "values that no family has"
    fewest = min(len(different) for _, different in candidates)
    descriptions = []
    for family, different in candidates:
        if len(different) == fewest:
            fields = ", ".join(f"{name} = {value!r}" for name, value in different.items())
            descriptions.append(f"{fields} (of {family.model_type} models)")
    return ", or in ".join(descriptions)


def differences(config: ModelConfig, other: ModelConfig) -> dict[str, Any]:
    """Return the fields of the model in which two configs differ, with the other's values."""
    ours = dataclasses.asdict(config)
    theirs = dataclasses.asdict(other)
    if isinstance(config, EncoderDecoderConfig) and isinstance(other, EncoderDecoderConfig):
        ours |= config.written_out()
        theirs |= other.written_out()
    if isinstance(config, DecoderConfig) or config.block == "gemma":
        for fields in (ours, theirs):
            if not fields["sliding_window"]:
                fields["rope_local_theta"] = 0.0  # Nothing reads it without local layers.
            if fields["query_scale"] == fields["head_dim"] ** -0.5:
                fields["query_scale"] = 0.0  # The default, written out.
        # The way to a query_pre_attn_scalar or logit_scale and back may change the last bit.
        for name in ours.keys() & {"query_scale", "logits_scaling"}:
            if math.isclose(ours[name], theirs[name], rel_tol=1e-12):
                theirs[name] = ours[name]
    return {
        name: theirs[name]
        for name, value in ours.items()
        if name not in FREE and value != theirs[name]
    }
