"""Every check of a config, without data and without a device."""

import dataclasses
import re
from typing import Any

from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.errors import UserError

CHOICES = {
    "format.train_on": ("all", "last"),
    "format.control_strings": ("text", "control"),
    "data.over_length": ("drop", "truncate-prompt", "error"),
    "model.norm_placement": ("pre", "post", "both"),
    "model.qk_norm": ("none", "head", "full"),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "minimal", "dots", "save_attention", "full", "offload"),
    "model.attention": ("auto", "xla", "blockwise", "splash", "triton"),
    "model.dropout_schedule": ("constant", "linear"),
    "model.rope_scaling": ("none", "linear", "llama3"),
    "optimizer.name": ("adamw", "adafactor", "lion", "sgd", "muon"),
    "optimizer.moment_dtype": ("float32", "bfloat16"),
    "optimizer.schedule": ("constant", "linear", "cosine", "rsqrt"),
    "loss.normalization": ("tokens", "examples", "constant", "sum"),
}


ACTIVATIONS = {
    "decoder": ("silu", "gelu", "gelu_tanh"),
    "encoder_decoder": ("relu", "gated_gelu"),
}


POSITIVE = (
    "data.max_length", "data.inputs_length", "data.targets_length", "data.window",
    "data.variants", "model.d_model", "model.n_heads", "model.head_dim", "model.d_ff",
    "train.batch_size", "train.gradient_accumulation_steps", "train.log_every", "train.max_to_keep",
    "train.max_bad_steps", "evaluation.batch_size", "evaluation.max_new_tokens",
    "loss.constant", "optimizer.learning_rate", "lora.alpha",
)  # fmt: skip


def _field(config: Config, path: str) -> Any:
    section, name = path.split(".")
    return getattr(getattr(config, section), name, None)


def _batch_rows(config: Config) -> Config:
    """The config with `batch_size` from `batch_tokens`, where those are given; idempotent."""
    data, train = config.data, config.train
    length = data.max_length if isinstance(config.model, DecoderConfig) else data.inputs_length
    if train.batch_tokens < 0 or (train.batch_tokens and train.batch_tokens % max(length, 1)):
        raise UserError(
            "config.train.batch_tokens: expected a multiple of the row's "
            f"{length} tokens; got {train.batch_tokens}"
        )
    rows = train.batch_tokens // max(length, 1)
    if train.batch_tokens and train.batch_size not in (0, rows):
        raise UserError(
            f"config.train.batch_size: {train.batch_size}, but batch_tokens "
            f"{train.batch_tokens} are {rows} rows of {length}; set one of them to 0"
        )
    train = dataclasses.replace(train, batch_size=rows or train.batch_size)
    return dataclasses.replace(config, train=train)


def check(config: Config) -> Config:
    """Every check of a config by itself, whether it trains or only describes a model.

    Returns it with `train.batch_size` resolved.

    Raises:
        UserError: names the first field that is wrong, its value and what was expected.
    """
    config = _batch_rows(config)
    choices = CHOICES | {"model.activation": ACTIVATIONS[config.model.architecture]}
    for path, allowed in choices.items():
        value = _field(config, path)
        if value is not None and value not in allowed:
            raise UserError(f"config.{path}: expected one of {', '.join(allowed)}; got {value!r}")
    for path in POSITIVE:
        value = _field(config, path)
        if value is not None and value <= 0:
            raise UserError(f"config.{path}: expected a positive number; got {value}")
    train, model = config.train, config.model
    if config.tokenizer.path and config.tokenizer.train_vocab_size:
        raise UserError("config.tokenizer: set path or train_vocab_size, not both")
    if train.batch_size % train.gradient_accumulation_steps:
        raise UserError(
            "config.train.gradient_accumulation_steps: expected a divisor of batch_size "
            f"{train.batch_size}; got {train.gradient_accumulation_steps}"
        )
    if isinstance(model, DecoderConfig):
        if model.n_heads % model.n_kv_heads:
            raise UserError(
                "config.model.n_kv_heads: expected a divisor of n_heads "
                f"{model.n_heads}; got {model.n_kv_heads}"
            )
        if model.head_dim % 2:
            raise UserError(f"config.model.head_dim: RoPE needs an even number; {model.head_dim}")
    elif config.format.bidirectional_prefix:
        raise UserError("config.format.bidirectional_prefix: is for model.architecture 'decoder'")
    if config.lora.rank < 0:
        raise UserError(f"config.lora.rank: expected 0 or more; got {config.lora.rank}")
    if config.lora.rank and config.optimizer.freeze:
        raise UserError("config.optimizer.freeze: with lora.rank all but the adapters is frozen")
    for path in ("lora.targets", "optimizer.freeze"):
        try:
            re.compile(_field(config, path))
        except re.error as error:
            raise UserError(f"config.{path}: not a regular expression: {error}") from error
    for name in config.evaluation.sets:
        if name not in ("eval", "heldout"):
            raise UserError(f"config.evaluation.sets: expected eval or heldout; got {name!r}")
    for path in ("model.dropout", "loss.label_smoothing", "data.max_dropped_fraction"):
        if not 0 <= _field(config, path) <= 1:
            raise UserError(f"config.{path}: expected 0 to 1; got {_field(config, path)}")
    return config


def check_run(config: Config) -> Config:
    """`check`, and what a config needs besides to train; no data and no device.

    Raises:
        UserError: as `check`.
    """
    config = check(config)
    train, model = config.train, config.model
    if not config.data.mixture:
        raise UserError("config.data.mixture: expected the name of a SeqIO task or mixture")
    if not (config.tokenizer.path or config.tokenizer.train_vocab_size or model.init_from):
        raise UserError("config.tokenizer: set path, or train_vocab_size to train one")
    if (train.steps > 0) == (train.epochs > 0):
        raise UserError("config.train: set either steps or epochs to a positive number")
    if isinstance(model, DecoderConfig) and 0 < model.max_length < config.data.max_length:
        raise UserError(
            f"config.data.max_length: {config.data.max_length} is more than the "
            f"{model.max_length} positions that the model was made for "
            "(model.max_length)"
        )
    return config
