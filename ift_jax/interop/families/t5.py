"""T5 1.0 and 1.1, what was made of them (Flan-T5, T0, Tk-Instruct, ByT5, UL2), mT5, and umT5."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ift_jax.config.schema import EncoderDecoderConfig
from ift_jax.interop.config_fields import (
    MOST_HEADS,
    MOST_LAYERS,
    SIZE,
    ConfigFields,
)
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.model_family import ModelFamily, register_family
from ift_jax.interop.tensor_names import LayerNames, TensorNames
from ift_jax.io.typed_fields import FLAG, NOT_NEGATIVE, NULL, TOKEN_ID, Kind, one_of, whole
from ift_jax.text.tokenizers.base import MOST_TOKENS

# Our fields that are the same number as one of theirs, and the kind of number.
NUMBERS: Mapping[str, tuple[str, Kind]] = {
    "vocab_size": ("vocab_size", whole(1, MOST_TOKENS)),
    "d_model": ("d_model", SIZE),
    "n_encoder_layers": ("num_layers", whole(1, MOST_LAYERS)),
    "n_decoder_layers": ("num_decoder_layers", whole(1, MOST_LAYERS)),
    "n_heads": ("num_heads", whole(1, MOST_HEADS)),
    "head_dim": ("d_kv", whole(1, MOST_HEADS)),
    "d_ff": ("d_ff", SIZE),
    "norm_eps": ("layer_norm_epsilon", NOT_NEGATIVE),
    # The encoder's buckets are halved for the two directions, and again for the near distances.
    "relative_buckets": ("relative_attention_num_buckets", whole(4, MOST_HEADS)),
    "relative_max_distance": ("relative_attention_max_distance", whole(1, 2**31 - 1)),
}
# Their activations -> ours.
ACTIVATIONS: Mapping[str, str] = {
    "relu": "relu",
    "gated-gelu": "gated_gelu",
    "gated-silu": "gated_silu",
}
RELATIVE_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"

SELF_ATTENTION_NAMES: dict[str, str] = {
    "attention_norm": "layer.0.layer_norm",
    "attention.query": "layer.0.SelfAttention.q",
    "attention.key": "layer.0.SelfAttention.k",
    "attention.value": "layer.0.SelfAttention.v",
    "attention.out": "layer.0.SelfAttention.o",
}
CROSS_ATTENTION_NAMES: dict[str, str] = {
    "cross_norm": "layer.1.layer_norm",
    "cross.query": "layer.1.EncDecAttention.q",
    "cross.key": "layer.1.EncDecAttention.k",
    "cross.value": "layer.1.EncDecAttention.v",
    "cross.out": "layer.1.EncDecAttention.o",
}


@register_family
class T5(ModelFamily[EncoderDecoderConfig]):
    """The MLP is gated in 1.1 and not in 1.0; the embedding is tied in 1.0 and not in 1.1.

    Attributes:
        bias_per_layer: As the field of our config.
    """

    model_type = "t5"
    architecture = "T5ForConditionalGeneration"
    config_class = EncoderDecoderConfig
    export_rank = 0
    defaults = {
        "feed_forward_proj": "relu",
        "layer_norm_epsilon": 1e-6,
        "num_decoder_layers": None,  # As many as the encoder's.
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "tie_word_embeddings": True,
    }
    nullable = frozenset({"num_decoder_layers"})
    bias_per_layer: ClassVar[bool] = False

    def read(self, fields: ConfigFields) -> EncoderDecoderConfig:
        """Return our config; raise a UserError for a value that is not supported."""
        activation = fields.get("feed_forward_proj", one_of(ACTIVATIONS))
        values = {ours: fields.get(theirs, kind) for ours, (theirs, kind) in NUMBERS.items()}
        values["norm_eps"] = float(values["norm_eps"])
        if values["n_decoder_layers"] is None:
            values["n_decoder_layers"] = values["n_encoder_layers"]
        half = values["relative_buckets"] // 2  # Distances below it have a bucket each.
        if values["relative_max_distance"] <= half:
            raise fields.refusal(
                "relative_attention_max_distance",
                values["relative_max_distance"],
                f"more than the {half} of half of relative_attention_num_buckets",
            )
        return EncoderDecoderConfig(
            **values,
            activation=ACTIVATIONS[activation],
            bias_per_layer=self.bias_per_layer,
            decoder_start_id=read_start_token(fields, "pad_token_id", 0),
            tied_embedding=self.read_tied_embedding(fields),
        )

    def read_tied_embedding(self, fields: ConfigFields) -> bool:
        """Return whether the head is the embedding, whose output T5 then scales.

        transformers 5 always writes that the embedding is tied; whether the output is scaled tells.
        """
        tied = fields.flag("tie_word_embeddings")
        return fields.flag("scale_decoder_outputs", default=tied)

    def write(self, config: EncoderDecoderConfig) -> dict[str, Any]:
        """Return the fields of a config.json."""
        their_activations = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
        fields: dict[str, Any] = {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            "is_encoder_decoder": True,
            "feed_forward_proj": their_activations[config.activation],
            "tie_word_embeddings": config.tied_embedding,
            "decoder_start_token_id": config.decoder_start_id,
        }
        return fields | {theirs: getattr(config, ours) for ours, (theirs, _) in NUMBERS.items()}

    def tensor_names(self, config: EncoderDecoderConfig) -> TensorNames:
        """Return what the tensors of a model with this config are called."""
        encoder_layer = SELF_ATTENTION_NAMES | _mlp_names(1, config)
        decoder_layer = SELF_ATTENTION_NAMES | CROSS_ATTENTION_NAMES | _mlp_names(2, config)
        shared_biases = {}
        if config.bias_per_layer:
            encoder_layer |= {"relative_bias": RELATIVE_BIAS}
            decoder_layer |= {"relative_bias": RELATIVE_BIAS}
        else:
            shared_biases = {
                f"{stack}.relative_bias": f"{stack}.block.0.{RELATIVE_BIAS}"
                for stack in ("encoder", "decoder")
            }
        return TensorNames(
            stacks={
                "encoder.layers": LayerNames("encoder.block", encoder_layer),
                "decoder.layers": LayerNames("decoder.block", decoder_layer),
            },
            outside={
                "embedding": "shared.weight",
                "head": "lm_head.weight",
                **shared_biases,
                "encoder.final_norm.scale": "encoder.final_layer_norm.weight",
                "decoder.final_norm.scale": "decoder.final_layer_norm.weight",
            },
            copies={
                "encoder.embed_tokens.weight": "shared.weight",
                "decoder.embed_tokens.weight": "shared.weight",
                "lm_head.weight": "shared.weight",
            },
            # transformers ties the head of an untied T5 that was saved without one.
            may_be_omitted=frozenset({"lm_head.weight"}),
            ignored_endings=("EncDecAttention.relative_attention_bias.weight",),
        )


@register_family
class MT5(T5):
    """The multilingual T5 1.1."""

    model_type = "mt5"
    architecture = "MT5ForConditionalGeneration"
    export_rank = 1
    defaults = T5.defaults | {"feed_forward_proj": "gated-gelu"}

    def read_tied_embedding(self, fields: ConfigFields) -> bool:
        """Return False: no mT5 scales its output, whatever transformers 5 writes."""
        super().read_tied_embedding(fields)
        return False


@register_family
class UMT5(MT5):
    """mT5 with a relative position bias in each layer."""

    model_type = "umt5"
    architecture = "UMT5ForConditionalGeneration"
    # Releases have "scalable_attention", which no code of transformers reads.
    ignored = {**IGNORED_FIELDS, "scalable_attention": FLAG}
    bias_per_layer = True

    def read_tied_embedding(self, fields: ConfigFields) -> bool:
        """Return whether the head is the embedding, whose output is then scaled.

        Releases have a head of their own, and say so. transformers 5 always writes that it is tied.
        """
        return fields.flag("tie_word_embeddings")

    def export_note(self, config: EncoderDecoderConfig) -> str:
        """Return what a user should know about an exported model; "": nothing."""
        if config.tied_embedding:
            return ""
        return (
            "transformers 5 takes every umT5 for tied, and scales the states before its head: set "
            "model.config.tie_word_embeddings = False once it is loaded there"
        )


def read_start_token(fields: ConfigFields, otherwise: str, default: int) -> int:
    """Return the id that the decoder reads first.

    Args:
        fields: The whole config.json.
        otherwise: The field that names the id where `decoder_start_token_id` does not.
        default: The id where that does not either.
    """
    start = fields.get("decoder_start_token_id", TOKEN_ID | NULL, None)
    if start is None:
        start = fields.get(otherwise, TOKEN_ID | NULL, None)
    return default if start is None else int(start)


def _mlp_names(index: int, config: EncoderDecoderConfig) -> dict[str, str]:
    """The names of the MLP, which is sublayer 1 of the encoder's layers and 2 of the decoder's."""
    sublayer = f"layer.{index}"
    names = {
        "mlp_norm": f"{sublayer}.layer_norm",
        "mlp.down": f"{sublayer}.DenseReluDense.wo",
    }
    if config.activation == "relu":
        return names | {"mlp.up": f"{sublayer}.DenseReluDense.wi"}
    return names | {
        "mlp.gate": f"{sublayer}.DenseReluDense.wi_0",
        "mlp.up": f"{sublayer}.DenseReluDense.wi_1",
    }
