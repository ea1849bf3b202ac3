"""Evaluates a model from disk on a config's unseen examples."""

import dataclasses
from typing import Any

import jax

from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError
from ift_jax.evaluation.evaluate import evaluate, evaluation_settings, plan
from ift_jax.evaluation.finished_batches import FinishedAnswers
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.stop_signals import StopSignals
from ift_jax.preparation.open_or_prepare import open_if_prepared, open_or_prepare
from ift_jax.text.tokenizers.load import load_tokenizer


def evaluate_model(
    config: Config,
    source: ModelSource,
    which: str,
    signals: StopSignals,
    output: str | None = None,
) -> dict[str, Any]:
    """Loads a model and evaluates it.

    Args:
        config: decides format, data and evaluation; the shape of the model and its tokenizer are
            the model's own.
        source: the opened model.
        which: "eval" or "heldout".
        signals: ends the evaluation between two batches; while the model is loaded, a signal ends
            the process as usual.
        output: a file that will be written; the answers so far are kept beside it, so that a run
            that is stopped goes on there.

    Returns:
        What `evaluate` returns, with "which" and the "step" of the checkpoint.

    Raises:
        UserError: the model has another architecture or tokenizer than the config says.
    """
    wanted = config.model.architecture
    found = source.config.model.architecture
    if wanted != found:
        raise UserError(
            f"config.model.architecture: is {wanted!r}, the model in {source.path} is {found!r}"
        )
    mixture = _open_data(config, source, which)
    loaded = load_model(source)
    config = dataclasses.replace(config, model=loaded.config.model)
    text_generator = TextGenerator(config, loaded.tokenizer, loaded.model)
    with jax.set_mesh(jax.tree.leaves(loaded.params)[0].sharding.mesh), signals:
        finished = None
        if output is not None:
            settings = evaluation_settings(text_generator, loaded.params, which)
            finished = FinishedAnswers.beside(output, settings)
        result = evaluate(
            text_generator,
            loaded.params,
            plan(text_generator, mixture),
            signals.received,
            finished=finished,
            with_loss=True,
        )
    return {"which": which, "step": loaded.step, **result}


def _open_data(config: Config, source: ModelSource, which: str) -> Mixture:
    """Opens the stores of the examples, prepared with the model's tokenizer.

    A config that would train a tokenizer gets the model's. The stores that its run has prepared
    with that same tokenizer are opened as they are.

    Raises:
        UserError: the config names a tokenizer that is another one.
    """
    tokenizer = source.tokenizer()
    if config.tokenizer.path:
        given = load_tokenizer(config.tokenizer.path, config.tokenizer)
        if given.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"config.tokenizer: expected that of the model in {source.path}; "
                f"{config.tokenizer.path} is another one"
            )
        return open_or_prepare(config, which)[1]
    opened = open_if_prepared(config, which)
    if opened is not None and opened[0].fingerprint == tokenizer.fingerprint:
        return opened[1]
    if source.tokenizer_config is None:
        raise UserError(
            f"{source.path}: its tokenizer is inside the file; expected the workdir that "
            "`ift import` makes of it"
        )
    config = dataclasses.replace(config, tokenizer=source.tokenizer_config)
    return open_or_prepare(config, which)[1]
