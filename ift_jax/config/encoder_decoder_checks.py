"""Checks of the config of an encoder-decoder."""

import dataclasses

from ift_jax.config.encoder_decoder import EncoderDecoderConfig
from ift_jax.errors import UserError

# The fields of T5's blocks, and those of Gemma's.
_T5_FIELDS = ("relative_buckets", "relative_max_distance", "bias_per_layer")
_GEMMA_FIELDS = (
    "max_length",
    "n_kv_heads",
    "encoder_d_model",
    "encoder_n_heads",
    "encoder_n_kv_heads",
    "encoder_d_ff",
    "encoder_embedding",
    "merged_attention",
    "image_end_id",
    "qk_norm",
    "query_scale",
    "attention_softcap",
    "final_softcap",
    "rope_theta",
    "rope_local_theta",
    "rope_scaling",
    "rope_factor",
    "sliding_window",
    "global_every",
    "layer_pattern",
)


def check_encoder_decoder(model: EncoderDecoderConfig) -> None:
    """Checks that the fields of an encoder-decoder fit together.

    Raises:
        UserError: names the first field that does not, its value, and what was expected.
    """
    others = _GEMMA_FIELDS if model.block == "t5" else _T5_FIELDS
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    for name in others:
        if getattr(model, name) != defaults[name]:
            raise UserError(
                f"config.model.{name}: {getattr(model, name)!r}, but layers of model.block "
                f"{model.block!r} do not read it; expected {defaults[name]!r}"
            )
    if 0 < model.vocab_size <= model.decoder_start_id:
        raise UserError(
            f"config.model.decoder_start_id: expected an id below the vocabulary's "
            f"{model.vocab_size}; got {model.decoder_start_id}"
        )
    if model.relative_max_distance <= model.relative_buckets // 2:
        raise UserError(
            "config.model.relative_max_distance: expected more than half of relative_buckets "
            f"{model.relative_buckets}; got {model.relative_max_distance}"
        )
    if model.block == "gemma":
        _check_gemma(model)


def _check_gemma(model: EncoderDecoderConfig) -> None:
    if model.activation == "relu":
        raise UserError(
            "config.model.activation: 'relu' has no gate, and layers of model.block 'gemma' do; "
            "expected 'gated_gelu' or 'gated_silu'"
        )
    if model.head_dim % 2:
        raise UserError(
            f"config.model.head_dim: expected an even number, because of RoPE; got {model.head_dim}"
        )
    for name, stack in (("", model.stack(decoder=True)), ("encoder_", model.stack(decoder=False))):
        if stack.n_heads % stack.n_kv_heads:
            raise UserError(
                f"config.model.{name}n_kv_heads: expected a divisor of {name}n_heads "
                f"{stack.n_heads}; got {stack.n_kv_heads}"
            )
    if model.layer_pattern and model.global_every:
        raise UserError(
            f"config.model.layer_pattern: {model.layer_pattern!r} and global_every "
            f"{model.global_every} both say which layers are global; set one of them"
        )
    if not model.encoder_embedding and model.encoder_width != model.d_model:
        raise UserError(
            f"config.model.encoder_d_model: {model.encoder_d_model}, but both stacks share the "
            f"embedding, whose width is {model.d_model}; set encoder_embedding to True"
        )
    if model.merged_attention and model.encoder_width != model.d_model:
        raise UserError(
            f"config.model.encoder_d_model: {model.encoder_d_model}, but merged_attention reads "
            f"both stacks by the same projections; expected d_model {model.d_model}"
        )
