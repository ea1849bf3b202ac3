"""Evaluates a model from disk on a config's unseen examples."""

import dataclasses
from typing import Any

import jax

from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.evaluation.evaluate import evaluate
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.preparation.open_or_prepare import open_or_prepare


def evaluate_model(config: Config, source: ModelSource, which: str) -> dict[str, Any]:
    """Loads a model and evaluates it.

    Args:
        config: decides format, data and evaluation; the shape of the model is its own.
        source: the opened model.
        which: "eval" or "heldout".

    Returns:
        What `evaluate` returns, with "which" and the "step" of the checkpoint.

    Raises:
        UserError: the model has another architecture or tokenizer than the config says.
    """
    loaded = load_model(source)
    where = f"the model in {source.path}"
    wanted = config.model.architecture
    found = loaded.config.model.architecture
    if wanted != found:
        raise UserError(f"config.model.architecture: is {wanted!r}, {where} is {found!r}")
    tokenizer, mixture = open_or_prepare(config, which)
    if tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        raise UserError(f"config.tokenizer: expected that of {where}; it is another one")
    config = dataclasses.replace(config, model=loaded.config.model)
    text_generator = TextGenerator(config, tokenizer, loaded.model)
    with jax.set_mesh(jax.tree.leaves(loaded.params)[0].sharding.mesh):
        result = evaluate(text_generator, loaded.params, mixture)
    return {"which": which, "step": loaded.step, **result}
