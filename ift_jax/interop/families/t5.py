"""T5 1.0 and 1.1, models finetuned from them (Flan-T5, T0, Tk-Instruct), and mT5."""

from collections.abc import Mapping
from typing import Any

from ift_jax.config.schema import EncoderDecoderConfig
from ift_jax.interop.config_fields import (
    MOST_HEADS,
    MOST_LAYERS,
    SIZE,
    ConfigFields,
)
from ift_jax.interop.model_family import ModelFamily, register_family
from ift_jax.interop.tensor_names import LayerNames, TensorNames
from ift_jax.io.typed_fields import NOT_NEGATIVE, Kind, one_of, whole
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
ACTIVATIONS: Mapping[str, str] = {"relu": "relu", "gated-gelu": "gated_gelu"}

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
    """The MLP is gated in 1.1 and not in 1.0; the embedding is tied in 1.0 and not in 1.1."""

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

    def read(self, fields: ConfigFields) -> EncoderDecoderConfig:
        """Return our config; raise a UserError for a value that is not supported."""
        activation = fields.get("feed_forward_proj", one_of(ACTIVATIONS))
        _check_start_token(fields)
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
        }
        return fields | {theirs: getattr(config, ours) for ours, (theirs, _) in NUMBERS.items()}

    def tensor_names(self, config: EncoderDecoderConfig) -> TensorNames:
        """Return what the tensors of a model with this config are called."""
        encoder_layer = SELF_ATTENTION_NAMES | _mlp_names(1, config)
        decoder_layer = SELF_ATTENTION_NAMES | CROSS_ATTENTION_NAMES | _mlp_names(2, config)
        relative_bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return TensorNames(
            stacks={
                "encoder.layers": LayerNames("encoder.block", encoder_layer),
                "decoder.layers": LayerNames("decoder.block", decoder_layer),
            },
            outside={
                "embedding": "shared.weight",
                "head": "lm_head.weight",
                "encoder.relative_bias": f"encoder.{relative_bias}",
                "encoder.final_norm.scale": "encoder.final_layer_norm.weight",
                "decoder.relative_bias": f"decoder.{relative_bias}",
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


def _check_start_token(fields: ConfigFields) -> None:
    pad = fields.raw.get("pad_token_id", 0)
    start = fields.raw.get("decoder_start_token_id")
    if start is not None and start != pad:
        raise fields.refusal("decoder_start_token_id", start, f"the pad_token_id {pad}")


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
