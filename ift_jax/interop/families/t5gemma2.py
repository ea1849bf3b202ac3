"""T5Gemma 2, its text part: Gemma 3's blocks as encoder and decoder (arXiv:2512.14856).

`transformers` has no class for the text part alone. So of a folder the vision tower is not read,
and an export describes the smallest one without weights: there it is made anew, as its warning
says, and never used for texts.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES, QK_NORM_NAMES
from ift_jax.interop.families.gemma3 import Gemma3Text
from ift_jax.interop.families.t5gemma import NORM_NAMES, StackFamily, T5Gemma
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.model_family import TensorT, register_family
from ift_jax.interop.tensor_names import LayerNames, TensorNames
from ift_jax.interop.text_part import ENCODER_IMAGE_TENSORS
from ift_jax.io.typed_fields import ANYTHING, OBJECT, TOKEN_ID, Kind

_IMAGE_FIELDS: Mapping[str, Kind] = dict.fromkeys(
    (
        "boi_token_index",
        "eoi_token_index",
        "image_token_index",
        "mm_tokens_per_image",
        "vision_config",
    ),
    ANYTHING,
)
_END_OF_IMAGE = 256_000
# The smallest vision tower that transformers makes.
_NO_VISION: Mapping[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 28,
    "patch_size": 14,
}
_NO_IMAGE_TOKENS = 4


class TextStackFamily(Gemma3Text):
    """The object of a stack in `config.json`; no family of its own."""

    model_type = "t5gemma2_text"
    defaults = Gemma3Text.defaults | {
        name: StackFamily.defaults[name]
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    }
    ignored = {**StackFamily.ignored}


@register_family
class T5Gemma2(T5Gemma):
    """One embedding for both stacks and the head, and one attention in a layer of the decoder."""

    model_type = "t5gemma2"
    architecture = "T5Gemma2ForConditionalGeneration"
    defaults = {"tie_word_embeddings": True, "vocab_size": 262_208}
    ignored = {**T5Gemma.ignored, **_IMAGE_FIELDS}
    stack_family: ClassVar[Gemma3Text] = TextStackFamily()

    def read_own_fields(self, fields: ConfigFields) -> dict[str, Any]:
        """Return our fields that T5Gemma and T5Gemma 2 do not share."""
        fields.expect("tie_word_embeddings", True)
        inner = ConfigFields(
            fields.get("encoder", OBJECT, {}),
            f"{fields.where}: encoder",
            model_type=fields.model_type,
            defaults={"eoi_token_index": _END_OF_IMAGE, "text_config": {}},
            nullable=frozenset(),
            ignored={**IGNORED_FIELDS, **_IMAGE_FIELDS, "tie_word_embeddings": ANYTHING},
        )
        inner.get("text_config", OBJECT)
        image_end = inner.get("eoi_token_index", TOKEN_ID)
        inner.finish()
        return {"merged_attention": True, "image_end_id": image_end}

    def encoder_object(self, fields: ConfigFields) -> tuple[str, dict[str, Any]]:
        """Return the place of the object that describes the encoder, and the object."""
        return "encoder: text_config", fields.get("encoder", OBJECT, {}).get("text_config", {})

    def _read_stack(self, fields: ConfigFields, name: str, raw: dict[str, Any]) -> DecoderConfig:
        """Return a stack as the decoder that its fields describe."""
        config = super()._read_stack(fields, name, raw)
        if config.attention_softcap:  # transformers reads the field and applies no cap.
            cap = raw["attn_logit_softcapping"]
            raise fields.refusal(f"{name}: attn_logit_softcapping", cap, "null")
        return config

    def write(self, config: EncoderDecoderConfig) -> dict[str, Any]:
        """Return the fields of a config.json."""
        fields = super().write(config)
        end = {"eoi_token_index": config.image_end_id}
        encoder = end | {
            "model_type": "t5gemma2_encoder",
            "text_config": fields["encoder"],
            "vision_config": dict(_NO_VISION),
            "mm_tokens_per_image": _NO_IMAGE_TOKENS,
        }
        decoder = fields["decoder"] | {"model_type": "t5gemma2_decoder"}
        return fields | end | {"encoder": encoder, "decoder": decoder}

    def export_note(self, config: EncoderDecoderConfig) -> str:
        """Return what a user should know about an exported model; "": nothing."""
        return (
            "transformers has no class for the text alone: it makes the smallest vision tower "
            "anew, as its warning says, and does not use it for texts"
        )

    def with_token_ids(self, fields: dict[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields with a tokenizer's ids, which each stack has too."""
        encoder = fields["encoder"]
        flat = super().with_token_ids(fields | {"encoder": encoder["text_config"]}, ids)
        return flat | {"encoder": encoder | {"text_config": flat["encoder"]}}

    def by_released_names(self, tensors: Mapping[str, TensorT]) -> Mapping[str, TensorT]:
        """Return a folder's tensors by the names that releases have.

        In memory transformers 5 has the encoder's text model apart.
        """
        in_memory, released = "model.encoder.text_model.", "model.encoder."
        return {name.replace(in_memory, released, 1): each for name, each in tensors.items()}

    def tensor_names(self, config: EncoderDecoderConfig) -> TensorNames:
        """Return what the tensors of a model with this config are called."""
        layer = ATTENTION_AND_MLP_NAMES | QK_NORM_NAMES | NORM_NAMES
        embedding = "model.encoder.embed_tokens.weight"
        image_end = "model.encoder.embed_tokens.eoi_embedding"
        names = super().tensor_names(config)
        return dataclasses.replace(
            names,
            stacks={
                f"{stack}.layers": LayerNames(f"model.{stack}.layers", layer)
                for stack in ("encoder", "decoder")
            },
            outside={
                **names.outside,
                "embedding": embedding,
                "image_end_embedding": image_end,
            },
            copies={
                "lm_head.out_proj.weight": embedding,
                "model.decoder.embed_tokens.weight": embedding,
                "model.decoder.embed_tokens.eoi_embedding": image_end,
            },
            ignored_beginnings=ENCODER_IMAGE_TENSORS,
        )
