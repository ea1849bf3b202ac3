"""T5Gemma: Gemma 2's blocks as encoder and decoder (arXiv:2504.06225).

`config.json` describes each stack in an object of its own, with the fields of a Gemma 2. What the
stacks must have in common is compared, and refused by name where it differs.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.decoder_family import ATTENTION_AND_MLP_NAMES
from ift_jax.interop.families.gemma2 import Gemma2
from ift_jax.interop.families.t5 import read_start_token
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.layer_types import written_layer_types
from ift_jax.interop.model_family import ModelFamily, register_family
from ift_jax.interop.tensor_names import LayerNames, TensorNames
from ift_jax.io.typed_fields import ANYTHING, OBJECT, TOKEN_ID, whole
from ift_jax.text.tokenizers.base import MOST_TOKENS

NORM_NAMES: dict[str, str] = {
    "attention_pre_norm": "pre_self_attn_layernorm",
    "attention_post_norm": "post_self_attn_layernorm",
    "mlp_pre_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
CROSS_NAMES: dict[str, str] = {
    "cross_pre_norm": "pre_cross_attn_layernorm",
    "cross.query": "cross_attn.q_proj",
    "cross.key": "cross_attn.k_proj",
    "cross.value": "cross_attn.v_proj",
    "cross.out": "cross_attn.o_proj",
    "cross_post_norm": "post_cross_attn_layernorm",
}
# Our fields that both stacks have, and that must be the same in both.
SHARED = (
    "vocab_size",
    "max_length",
    "head_dim",
    "activation",
    "norm_eps",
    "qk_norm",
    "query_scale",
    "attention_softcap",
    "rope_theta",
    "rope_local_theta",
    "rope_scaling",
    "rope_factor",
    "sliding_window",
)
# The activations of a decoder -> those of an encoder-decoder.
ACTIVATIONS: Mapping[str, str] = {"gelu_tanh": "gated_gelu", "silu": "gated_silu"}
BOS = 2  # Gemma's.
# Our fields of the encoder that may differ from the decoder's.
OF_ENCODER = ("d_model", "n_heads", "n_kv_heads", "d_ff")


class StackFamily(Gemma2):
    """The object of a stack in `config.json`; no family of its own."""

    model_type = "t5_gemma_module"
    defaults = Gemma2.defaults | {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "vocab_size": 256_000,
    }
    ignored = {
        **Gemma2.ignored,
        "classifier_dropout_rate": ANYTHING,
        "cross_attention_hidden_size": ANYTHING,  # The encoder's width, which is read there.
    }


@register_family
class T5Gemma(ModelFamily[EncoderDecoderConfig]):
    """Two stacks of Gemma 2's blocks, each with an embedding; the decoder's is the head's.

    Attributes:
        stack_family: Reads and writes the object of a stack.
    """

    model_type = "t5gemma"
    architecture = "T5GemmaForConditionalGeneration"
    config_class = EncoderDecoderConfig
    defaults = {"tie_word_embeddings": True, "vocab_size": 256_000}
    ignored = {**IGNORED_FIELDS, "classifier_dropout_rate": ANYTHING}
    stack_family: ClassVar[Gemma2] = StackFamily()

    def read(self, fields: ConfigFields) -> EncoderDecoderConfig:
        """Return our config; raise a UserError for a value that is not supported."""
        own = self.read_own_fields(fields)
        encoder = self._read_stack(fields, *self.encoder_object(fields))
        of_decoder = fields.get("decoder", OBJECT, {})
        decoder = self._read_stack(fields, "decoder", of_decoder)
        fields.get("vocab_size", whole(1, MOST_TOKENS))  # The decoder's own decides.
        values = self._read_shared(fields, encoder, decoder)
        for name in OF_ENCODER:
            of_encoder = getattr(encoder, name)
            values[name] = getattr(decoder, name)
            values[f"encoder_{name}"] = 0 if of_encoder == values[name] else of_encoder
        config = EncoderDecoderConfig(
            block="gemma",
            n_encoder_layers=encoder.n_layers,
            n_decoder_layers=decoder.n_layers,
            final_softcap=decoder.final_softcap,
            decoder_start_id=self._read_start(fields, of_decoder),
            tied_embedding=fields.flag("tie_word_embeddings"),
            **values,
            **own,
        )
        for name, stack in (("encoder", encoder), ("decoder", decoder)):
            if config.stack(decoder=name == "decoder").local_layers() != stack.local_layers():
                types = written_layer_types(stack)
                raise fields.refusal(f"{name}.layer_types", types, "the order of the other stack")
        return config

    def read_own_fields(self, fields: ConfigFields) -> dict[str, Any]:
        """Return our fields that T5Gemma and T5Gemma 2 do not share."""
        return {"encoder_embedding": True}

    def encoder_object(self, fields: ConfigFields) -> tuple[str, dict[str, Any]]:
        """Return the place of the object that describes the encoder, and the object."""
        return "encoder", fields.get("encoder", OBJECT, {})

    def _read_start(self, fields: ConfigFields, decoder: dict[str, Any]) -> int:
        """Return the id that the decoder reads first: in training its BOS, which must be given."""
        bos = decoder.get("bos_token_id", BOS)
        fields.check("decoder.bos_token_id", bos, TOKEN_ID)
        start = read_start_token(fields, "bos_token_id", bos)
        if start != bos:
            raise fields.refusal("decoder_start_token_id", start, f"the decoder's BOS {bos}")
        return start

    def _read_stack(self, fields: ConfigFields, name: str, raw: dict[str, Any]) -> DecoderConfig:
        """Return a stack as the decoder that its fields describe."""
        family = self.stack_family
        inner = ConfigFields(
            raw,
            f"{fields.where}: {name}",
            model_type=fields.model_type,
            defaults=family.defaults,
            nullable=family.nullable,
            ignored=family.ignored,
        )
        config = family.read(inner)
        inner.finish()
        if config.qkv_bias:
            raise inner.refusal("attention_bias", True, "false")
        if config.activation not in ACTIVATIONS:
            raise inner.refusal("hidden_activation", config.activation, "'gelu_pytorch_tanh'")
        if config.rope_scaling not in ("none", "linear") or config.rope_scales_local:
            raise inner.refusal("rope_scaling", config.rope_scaling, "no scaling")
        return config

    def _read_shared(
        self, fields: ConfigFields, encoder: DecoderConfig, decoder: DecoderConfig
    ) -> dict[str, Any]:
        """Return what both stacks have; raise a UserError if it differs."""
        values = {name: getattr(decoder, name) for name in SHARED}
        for name, value in values.items():
            if getattr(encoder, name) != value:
                raise fields.refusal(
                    "encoder", f"{name} {getattr(encoder, name)!r}", f"the decoder's {value!r}"
                )
        values["activation"] = ACTIVATIONS[decoder.activation]
        longer = max(encoder, decoder, key=lambda stack: stack.n_layers)
        values |= {"global_every": longer.global_every, "layer_pattern": longer.layer_pattern}
        return values

    def write(self, config: EncoderDecoderConfig) -> dict[str, Any]:
        """Return the fields of a config.json."""
        decoder = self._write_stack(config, decoder=True)
        return {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            "is_encoder_decoder": True,
            "tie_word_embeddings": config.tied_embedding,
            "vocab_size": config.vocab_size,
            "decoder_start_token_id": config.decoder_start_id,
            "encoder": self._write_stack(config, decoder=False),
            "decoder": decoder | {"bos_token_id": config.decoder_start_id, "is_decoder": True},
        }

    def _write_stack(self, config: EncoderDecoderConfig, *, decoder: bool) -> dict[str, Any]:
        """Return the object of a stack."""
        stack = dataclasses.replace(
            config.stack(decoder=decoder),
            sliding_window=config.sliding_window,
            final_softcap=config.final_softcap,
        )
        fields = self.stack_family.write(stack)
        del fields["architectures"]
        return fields

    def with_token_ids(self, fields: dict[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields with a tokenizer's ids, which each stack has too."""
        of_stacks = {name: ids[name] for name in ("pad_token_id", "eos_token_id")}
        stacks = {name: fields[name] | of_stacks for name in ("encoder", "decoder")}
        return {**fields, **ids, "bos_token_id": fields["decoder_start_token_id"], **stacks}

    def tensor_names(self, config: EncoderDecoderConfig) -> TensorNames:
        """Return what the tensors of a model with this config are called."""
        layer = ATTENTION_AND_MLP_NAMES | NORM_NAMES
        head = "lm_head.out_proj.weight"
        embedding = "model.decoder.embed_tokens.weight"
        return TensorNames(
            stacks={
                "encoder.layers": LayerNames("model.encoder.layers", layer),
                "decoder.layers": LayerNames("model.decoder.layers", layer | CROSS_NAMES),
            },
            outside={
                "embedding": embedding,
                "encoder_embedding": "model.encoder.embed_tokens.weight",
                "head": head,
                "encoder.final_norm.scale": "model.encoder.norm.weight",
                "decoder.final_norm.scale": "model.decoder.norm.weight",
            },
            copies={head: embedding},
        )
