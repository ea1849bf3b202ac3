"""Starting a run from a model that exists: the config field `model.init_from`."""

import dataclasses
import os
from typing import Any

import jax

from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.checkpoint.open_model import WorkdirSource, open_model_source
from ift_jax.checkpoint.quantize_on_load import quantizing
from ift_jax.checkpoint.run_description import TOKENIZER_FOLDER
from ift_jax.config.checks import check_run
from ift_jax.config.schema import Config, ModelConfig, TokenizerConfig
from ift_jax.config.stages import check_kept_state
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import FREE
from ift_jax.models.model import Model, Params, build_model, resolve_vocab
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import load_tokenizer


def resolve_init(config: Config) -> Config:
    """Fill in what `model.init_from` decides; return the config itself if that is empty.

    The fields of the model come from there, except those that a run is free to choose
    (`hugging_face_config.FREE`). So do the tokenizer and the stop ids, unless the config names a
    tokenizer. The vocabulary grows if the tokenizer is larger. Nothing is put on a device, and
    resolving twice changes nothing.

    Raises:
        UserError: There is no model to start from, it has another architecture, a field is set to
            a different value, or rows are longer than the model's positions.
    """
    given = config.model
    if not given.init_from:
        return config
    where = f"config.model.init_from {given.init_from}"
    if given.init_from.endswith(".gguf"):
        raise UserError(f"{where}: import it first: ift import FILE.gguf --workdir DIR")
    source = open_model_source(given.init_from)
    if source.config.model.architecture != given.architecture:
        raise UserError(
            f"config.model.architecture: {given.architecture}, but {where} is "
            f"{source.config.model.architecture}"
        )
    if config.optimizer.keep_state:
        if not isinstance(source, WorkdirSource):
            raise UserError(
                f"config.optimizer.keep_state: {where} is a released model without an optimizer's "
                "state; expected the workdir of a run"
            )
        check_kept_state(source.config, config, given.init_from)
    if not config.tokenizer.path:
        config = _with_tokenizer_of(source, config)
    vocab_size = _vocab_size(source, given, config.tokenizer, where)
    free = {name: getattr(given, name) for name in FREE if hasattr(given, name)}
    model = dataclasses.replace(source.config.model, **free, vocab_size=vocab_size)
    _check_fields(given, model, where)
    return check_run(dataclasses.replace(config, model=model))


def _with_tokenizer_of(source: ModelSource, config: Config) -> Config:
    """Return the config with the source's tokenizer and, unless it has its own, stop ids."""
    path = source.path
    if isinstance(source, WorkdirSource):
        path = os.path.join(source.path, TOKENIZER_FOLDER)
    extra_ids = config.tokenizer.extra_ids or source.config.tokenizer.extra_ids
    stop_ids = config.evaluation.stop_ids or source.config.evaluation.stop_ids
    return dataclasses.replace(
        config,
        tokenizer=dataclasses.replace(config.tokenizer, path=path, extra_ids=extra_ids),
        evaluation=dataclasses.replace(config.evaluation, stop_ids=stop_ids),
    )


def _vocab_size(
    source: ModelSource, given: ModelConfig, tokenizer: TokenizerConfig, where: str
) -> int:
    """Return the vocabulary size of the run, at least that of the source."""
    source_model = source.config.model
    source_size = source_model.vocab_size
    if not source_size:
        source_size = resolve_vocab(source_model, source.tokenizer().vocab_size).vocab_size
    size = given.vocab_size
    if not size:
        n_tokens = load_tokenizer(tokenizer.path, tokenizer).vocab_size
        size = source_size
        if n_tokens > source_size:
            unsized = dataclasses.replace(source_model, vocab_size=0)
            size = resolve_vocab(unsized, n_tokens).vocab_size
    if size < source_size:
        raise UserError(
            f"config.model.vocab_size: expected at least the {source_size} rows of {where}"
        )
    return size


def _check_fields(given: ModelConfig, resolved: ModelConfig, where: str) -> None:
    """Raise a UserError if a field that the config sets differs from the model's."""
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        resolved_value = getattr(resolved, field.name)
        if value not in (field.default, resolved_value):
            raise UserError(
                f"config.model.{field.name}: {value!r}, but {where} has {resolved_value!r}"
            )


def init_params(
    model: Model, config: Config, shardings: Any, tokenizer: Tokenizer | None = None
) -> Params:
    """Read the first parameters of a run that starts from `model.init_from`.

    Args:
        model: The model; what it quantizes (`LoraConfig.quantize`) is quantized. Its adapters are
            not read.
        config: The result of `resolve_init`.
        shardings: The shardings of parameters, whose mesh is used.
        tokenizer: The run's tokenizer; read again if not given.
    """
    if tokenizer is None:
        tokenizer = load_tokenizer(config.tokenizer.path, config.tokenizer)
    mesh = jax.tree.leaves(shardings)[0].mesh
    source = open_model_source(config.model.init_from)
    return source.params(build_model(model.config), mesh, tokenizer, quantizing(model, mesh))
