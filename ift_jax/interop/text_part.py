"""The language model inside the folder of a model of images and text."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.safetensors_files import Tensor
from ift_jax.io.typed_fields import ANYTHING, OBJECT

# Families of images and text -> that of their text if its config does not name it.
TEXT_FAMILIES: Mapping[str, str] = {"gemma3": "gemma3_text", "mistral3": "mistral"}
# Fields that concern images alone.
_IMAGE_FIELDS = (
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "mm_tokens_per_image",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "vision_config",
    "vision_feature_layer",
)
_IMAGE_TENSORS = ("vision_tower.", "multi_modal_projector.")


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
    reader = ConfigFields(
        fields,
        where,
        model_type=fields["model_type"],
        defaults={},
        nullable=frozenset(),
        ignored={**IGNORED_FIELDS, **dict.fromkeys(_IMAGE_FIELDS, ANYTHING)},
    )
    own = reader.get("text_config", OBJECT)
    of_text = {"model_type": TEXT_FAMILIES[fields["model_type"]], **own}
    # The whole model's field decides, of which transformers makes true where it is absent.
    tied = reader.flag("tie_word_embeddings", True)
    if "tie_word_embeddings" not in fields and "tie_word_embeddings" in own:
        tied = own["tie_word_embeddings"]
    reader.finish()
    of_text["tie_word_embeddings"] = tied
    if "eos_token_id" in fields:
        of_text["eos_token_id"] = fields["eos_token_id"]
    return TextPart(
        of_text,
        {_text_name(name): each for name, each in tensors.items() if not _is_of_images(name)},
        tuple(name for name in tensors if _is_of_images(name)),
    )


def _is_of_images(name: str) -> bool:
    return name.removeprefix("model.").startswith(_IMAGE_TENSORS)


def _text_name(name: str) -> str:
    """Return the name of a tensor in a model of text alone."""
    if name.startswith("model.language_model."):  # As transformers has it in memory.
        return "model." + name.removeprefix("model.language_model.")
    return name.removeprefix("language_model.")  # As it is in files.
