"""Every check of a config that needs neither data nor a device."""

import dataclasses

from ift_jax.config.encoder_decoder_checks import check_encoder_decoder
from ift_jax.config.fields import rules_of
from ift_jax.config.learning_rate import with_learning_rate
from ift_jax.config.lora import check_lora
from ift_jax.config.preference import with_preference
from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.errors import UserError, counted


def check(config: Config) -> Config:
    """Checks a config, whether it trains or only describes a model.

    Returns:
        The config with `train.batch_size` resolved from `train.batch_tokens`, with a learning
        rate and, on pairs, a beta, and without `tokenizer.train_vocab_size` if a tokenizer is
        given.

    Raises:
        UserError: names the first field that is wrong, its value, and what was expected.
    """
    _check_fields(config)
    config = _with_batch_size(config)
    config = _with_given_tokenizer(config)
    config = with_preference(config)
    config = with_learning_rate(config)
    _check_batch(config)
    _check_model(config)
    _check_linear_layers(config)
    _check_split_layers(config)
    _check_mesh(config)
    _check_adapters(config)
    return config


def check_given(config: Config) -> None:
    """Checks what a user set, before the rest is chosen from the model, the data and the devices.

    It leaves out what the choice may still change, such as the batch.

    Raises:
        UserError: as `check`.
    """
    _check_fields(config)
    with_preference(config)
    _check_adapters(config)


def _check_adapters(config: Config) -> None:
    check_lora(config.lora)
    if config.lora.rank and config.optimizer.freeze:
        raise UserError(
            "config.optimizer.freeze: with lora.rank, everything but the adapters is frozen already"
        )


def _with_given_tokenizer(config: Config) -> Config:
    """Returns the config without a tokenizer to train if `path` or `init_from` gives one.

    A recipe that trains a small tokenizer thus also finetunes a real model, with no field to
    unset.
    """
    if not (config.tokenizer.path or config.model.init_from):
        return config
    tokenizer = dataclasses.replace(config.tokenizer, train_vocab_size=0)
    return dataclasses.replace(config, tokenizer=tokenizer)


def check_run(config: Config) -> Config:
    """Checks a config for training: `check`, and that it names data, a tokenizer and a length.

    Returns:
        As `check`.

    Raises:
        UserError: as `check`.
    """
    config = check(config)
    train, model, data = config.train, config.model, config.data
    if not data.mixture:
        raise UserError("config.data.mixture: expected the name of a SeqIO task or mixture")
    if not (config.tokenizer.path or config.tokenizer.train_vocab_size or model.init_from):
        raise UserError("config.tokenizer: set path, or train_vocab_size to train one")
    if train.steps > 0 and train.epochs > 0:
        raise UserError(
            f"config.train: steps={train.steps} and epochs={train.epochs:g} are both set; set one "
            "of them to 0, as in --config.train.epochs=0"
        )
    if train.steps <= 0 and train.epochs <= 0:
        raise UserError(
            "config.train: steps and epochs are both 0; set one of them (to evaluate a model "
            "without training: ift eval --workdir MODEL)"
        )
    if config.optimizer.keep_state and not model.init_from:
        raise UserError(
            "config.optimizer.keep_state: expected model.init_from, the workdir of the run whose "
            "optimizer goes on"
        )
    if isinstance(model, DecoderConfig) and 0 < model.max_length < data.max_length:
        raise UserError(
            f"config.data.max_length: {data.max_length} is more than the {model.max_length} "
            "positions that the model was made for (model.max_length)"
        )
    if not isinstance(model, DecoderConfig) and model.max_length:
        for name in ("inputs_length", "targets_length"):
            if getattr(data, name) > model.max_length:
                raise UserError(
                    f"config.data.{name}: {getattr(data, name)} is more than the "
                    f"{model.max_length} positions that the model was made for (model.max_length)"
                )
    return config


def _check_fields(config: Config) -> None:
    """Checks each field against the choices and bounds of its definition."""
    for section_field in dataclasses.fields(config):
        section = getattr(config, section_field.name)
        where = f"config.{section_field.name}"
        if not dataclasses.is_dataclass(section):
            rules_of(section_field).check(where, section)
            continue
        for field in dataclasses.fields(section):
            rules_of(field).check(f"{where}.{field.name}", getattr(section, field.name))


def _with_batch_size(config: Config) -> Config:
    """The config with `batch_size` from `batch_tokens`, if those are given; idempotent."""
    train = config.train
    if not train.batch_tokens:
        return config
    lengths = config.row_lengths
    row_tokens = lengths.encoder or lengths.decoder  # T0 counts the encoder's tokens alone.
    if train.batch_tokens % row_tokens:
        raise UserError(
            f"config.train.batch_tokens: expected a multiple of the row's {row_tokens} tokens; "
            f"got {train.batch_tokens}"
        )
    rows = train.batch_tokens // row_tokens
    if train.batch_size not in (0, rows):
        raise UserError(
            f"config.train.batch_size: {train.batch_size}, but batch_tokens {train.batch_tokens} "
            f"are {counted(rows, 'row')} of {row_tokens}; set one of them to 0"
        )
    return dataclasses.replace(config, train=dataclasses.replace(train, batch_size=rows))


def _check_batch(config: Config) -> None:
    train = config.train
    if not train.batch_size:
        raise UserError(
            "config.train.batch_size: expected a positive number, or batch_tokens; got 0"
        )
    if train.batch_size % train.gradient_accumulation_steps:
        raise UserError(
            "config.train.gradient_accumulation_steps: expected a divisor of batch_size "
            f"{train.batch_size}; got {train.gradient_accumulation_steps}"
        )


def _check_model(config: Config) -> None:
    model = config.model
    if not isinstance(model, DecoderConfig):
        if config.format.bidirectional_prefix:
            raise UserError(
                "config.format.bidirectional_prefix: is for model.architecture 'decoder'"
            )
        check_encoder_decoder(model)
        return
    if model.n_heads % model.n_kv_heads:
        raise UserError(
            f"config.model.n_kv_heads: expected a divisor of n_heads {model.n_heads}; "
            f"got {model.n_kv_heads}"
        )
    if model.head_dim % 2:
        raise UserError(
            f"config.model.head_dim: expected an even number, because of RoPE; got {model.head_dim}"
        )
    if model.rope_high_freq_factor <= model.rope_low_freq_factor:
        raise UserError(
            "config.model.rope_high_freq_factor: expected more than rope_low_freq_factor "
            f"{model.rope_low_freq_factor:g}; got {model.rope_high_freq_factor:g}"
        )
    if model.rope_dim % 2 or model.rope_dim > model.head_dim:
        raise UserError(
            f"config.model.rope_dim: expected an even number up to head_dim {model.head_dim}; "
            f"got {model.rope_dim}"
        )
    n_pairs = (model.rope_dim or model.head_dim) // 2
    for name in ("rope_short_factors", "rope_long_factors"):
        given = len(getattr(model, name))
        if given != (n_pairs if model.rope_scaling == "longrope" else 0):
            raise UserError(
                f"config.model.{name}: expected {n_pairs} numbers with rope_scaling 'longrope', "
                f"none without; got {given}"
            )
    if bool(model.n_experts) != bool(model.experts_per_token) or (
        model.experts_per_token > model.n_experts
    ):
        raise UserError(
            "config.model.experts_per_token: expected from 1 to n_experts, or 0 without experts "
            f"(n_experts is {model.n_experts}); got {model.experts_per_token}"
        )
    for name, unset in (("expert_layers", ""), ("dense_d_ff", 0), ("shared_d_ff", 0)):
        value = getattr(model, name)
        if value != unset and not model.n_experts:
            raise UserError(
                f"config.model.{name}: {value!r}, but n_experts is 0; expected {unset!r}"
            )
    if model.n_experts and not model.mlp_gated:
        raise UserError("config.model.mlp_gated: False, but experts have gates; expected True")
    if ("D" in model.expert_layers) != bool(model.dense_d_ff):
        raise UserError(
            "config.model.dense_d_ff: expected a width if expert_layers names dense layers, else 0 "
            f"(expert_layers is {model.expert_layers!r}); got {model.dense_d_ff}"
        )
    if model.activation == "clamped_swish" and not model.n_experts:
        raise UserError(
            "config.model.activation: 'clamped_swish' is for experts, and n_experts is 0; expected "
            "'silu', 'gelu' or 'gelu_tanh'"
        )
    if model.activation == "xielu" and (
        model.mlp_gated or model.layer_input_dim or model.linear_layers
    ):
        raise UserError(
            "config.model.activation: 'xielu' is for feed-forward layers without a gate; expected "
            "mlp_gated False, layer_input_dim 0, and no linear_layers, or another activation"
        )
    if model.layer_pattern and model.global_every:
        raise UserError(
            f"config.model.layer_pattern: {model.layer_pattern!r} and global_every "
            f"{model.global_every} both say which layers are global; set one of them"
        )


def _check_linear_layers(config: Config) -> None:
    """Checks what linear attention cannot do, if the model has it."""
    model = config.model
    if not isinstance(model, DecoderConfig) or "linear" not in model.attention_kinds():
        return
    if model.linear_value_heads % model.linear_key_heads:
        raise UserError(
            "config.model.linear_value_heads: expected a multiple of linear_key_heads "
            f"{model.linear_key_heads}; got {model.linear_value_heads}"
        )
    if config.mesh.sequence != 1:
        raise UserError(
            f"config.mesh.sequence: {config.mesh.sequence}, but layers with linear attention "
            "(model.linear_layers) need whole rows on a device; set it to 1 and use fsdp or tensor"
        )
    if config.format.bidirectional_prefix:
        raise UserError(
            "config.format.bidirectional_prefix: layers with linear attention "
            "(model.linear_layers) read every token in one direction; set it to False"
        )


def _check_split_layers(config: Config) -> None:
    """Checks a model whose global and local layers differ, or share keys and values."""
    model = config.model
    if not isinstance(model, DecoderConfig) or not model.splits_local:
        return
    if model.global_head_dim % 2:
        raise UserError(
            "config.model.global_head_dim: expected an even number, because of RoPE; got "
            f"{model.global_head_dim}"
        )
    if model.n_heads % model.kv_heads_of(local=False):
        raise UserError(
            f"config.model.global_kv_heads: expected a divisor of n_heads {model.n_heads}; "
            f"got {model.global_kv_heads}"
        )
    for name in ("linear_layers", "n_experts"):
        if getattr(model, name):
            raise UserError(
                f"config.model.{name}: is not supported where global and local layers differ, or "
                "share keys and values (global_head_dim, global_kv_heads, global_values_are_keys, "
                "kv_shared_layers)"
            )
    local = model.local_layers()
    n_own = model.n_kv_layers
    if n_own < 1 or set(local[n_own:]) - set(local[:n_own]):
        raise UserError(
            f"config.model.kv_shared_layers: {model.kv_shared_layers} of {model.n_layers} layers; "
            "expected a local layer before the last ones that are shared if one of them is local, "
            "and a global one if one of them is global"
        )


def _check_mesh(config: Config) -> None:
    sizes = dataclasses.asdict(config.mesh)
    rest = [axis for axis, size in sizes.items() if size == -1]
    if len(rest) > 1:
        raise UserError(
            f"config.mesh.{rest[1]}: -1 takes the devices that are left, and mesh.{rest[0]} is -1 "
            "already; expected a number"
        )
