"""The language model inside the folder of a model of images and text."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.safetensors_files import Tensor
from ift_jax.io.typed_fields import ANYTHING, OBJECT

# Families of images and text -> that of their text if its config does not name it.
TEXT_FAMILIES: Mapping[str, str] = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "mistral3": "mistral",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
# Those of them whose heads are not tied where no field says it.
_UNTIED = ("qwen3_5", "qwen3_5_moe")
# Fields that concern images alone.
_IMAGE_FIELDS = (
    "boi_token_id",
    "boi_token_index",
    "eoi_token_id",
    "eoi_token_index",
    "image_token_id",
    "image_token_index",
    "mm_tokens_per_image",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_feature_layer",
    "vision_start_token_id",
)
# Fields that concern sounds alone, of the families that hear them.
_SOUND_FIELDS = (
    "audio_config",
    "audio_token_id",
    "boa_token_id",
    "eoa_token_id",
    "eoa_token_index",
)
_WITH_SOUNDS = ("gemma4", "gemma4_unified")
# Those of images in an encoder-decoder, T5Gemma 2, whose config is read as a whole.
ENCODER_IMAGE_TENSORS = ("model.encoder.vision_tower.", "model.encoder.multi_modal_projector.")
# "mtp." are heads that predict further tokens.
_OTHER_TENSORS = (
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
    "mtp.",
    "multi_modal_projector.",
    "vision_embedder.",
    "vision_tower.",
    "visual.",
)


class TextPart(NamedTuple):
    """The text part of a folder.

    Attributes:
        fields: A `config.json` of the text part alone.
        tensors: Its tensors, by the names that they have in a model of text alone.
        ignored: The names of the tensors of the other parts.
    """

    fields: dict[str, Any]
    tensors: Mapping[str, Tensor]
    ignored: tuple[str, ...]


def is_multimodal(fields: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a model whose text part can be read."""
    return fields.get("model_type") in TEXT_FAMILIES


def text_part(fields: dict[str, Any], tensors: Mapping[str, Tensor], where: str) -> TextPart:
    """Return the text part of a model of images and text.

    Args:
        fields: The content of its `config.json`.
        tensors: All of its tensors.
        where: What messages call the file.

    Raises:
        UserError: A field that is not known, or no field `text_config`.
    """
    sounds = _SOUND_FIELDS if fields["model_type"] in _WITH_SOUNDS else ()
    reader = ConfigFields(
        fields,
        where,
        model_type=fields["model_type"],
        defaults={},
        nullable=frozenset(),
        ignored={**IGNORED_FIELDS, **dict.fromkeys((*_IMAGE_FIELDS, *sounds), ANYTHING)},
    )
    own = reader.get("text_config", OBJECT)
    of_text = {"model_type": TEXT_FAMILIES[fields["model_type"]], **own}
    # The whole model's field decides, of which transformers mostly makes true where it is absent.
    tied = reader.flag("tie_word_embeddings", fields["model_type"] not in _UNTIED)
    if "tie_word_embeddings" not in fields and "tie_word_embeddings" in own:
        tied = own["tie_word_embeddings"]
    reader.finish()
    of_text["tie_word_embeddings"] = tied
    if "eos_token_id" in fields:
        of_text["eos_token_id"] = fields["eos_token_id"]
    return TextPart(
        of_text,
        {_text_name(name): each for name, each in tensors.items() if not _is_no_text(name)},
        tuple(name for name in tensors if _is_no_text(name)),
    )


def is_of_images(name: str) -> bool:
    """Whether a tensor is of the images of an encoder-decoder."""
    return name.startswith(ENCODER_IMAGE_TENSORS)


def name_in_whole_model(name: str) -> str:
    """Return the name that `transformers` has for a module of the text part in the whole model."""
    if name.startswith("model."):
        return "model.language_model." + name.removeprefix("model.")
    return name


def _is_no_text(name: str) -> bool:
    return name.removeprefix("model.").startswith(_OTHER_TENSORS)


def _text_name(name: str) -> str:
    """Return the name of a tensor in a model of text alone."""
    if name.startswith("model.language_model."):  # As transformers has it in memory.
        return "model." + name.removeprefix("model.language_model.")
    return name.removeprefix("language_model.")  # As it is in files.
