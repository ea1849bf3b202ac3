"""A weighted mean of models, or of checkpoints of one run, as a model of its own.

Averaging the last checkpoints of a run, or runs that began from one model, often scores better than
each of them ("model soups", arXiv:2203.05482).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax

from ift_jax.checkpoint.lineage import Ingredient, Origin
from ift_jax.checkpoint.load_model import LoadedModel, describe_model, load_params
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.checkpoint.new_workdir import FirstModel, write_first_checkpoint
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.config.schema import Config, LoraConfig, ModelConfig
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import FREE
from ift_jax.models.model import Params

_SUM_TOLERANCE = 1e-6


class Part(NamedTuple):
    """One model of a mean.

    Attributes:
        path: The workdir of a run, a Hugging Face folder, or a `.gguf` file.
        step: The checkpoint of a run; None for its newest.
        weight: Its weight in the mean.
    """

    path: str
    step: int | None
    weight: float


def merge_models(parts: Sequence[Part], workdir: str) -> LoadedModel:
    """Write the weighted mean of some models' parameters into a new workdir, at step 0.

    The sum is taken in float32, in the order of the parts. Adapters of a run with LoRA are merged
    into its weights first. Config and tokenizer are those of the first part.

    Args:
        parts: Two models or more, of one shape and one tokenizer.
        workdir: The folder to make, local or in a bucket. It appears only when it is complete.

    Raises:
        UserError: The weights do not sum to 1, the models do not fit each other, or one cannot be
            read.
    """
    _check_weights([part.weight for part in parts])
    sources = [open_model_source(part.path, part.step) for part in parts]
    _check_alike(sources)

    def read() -> FirstModel:
        first = sources[0]
        config, tokenizer, model = describe_model(first)
        total = _scaled(load_params(first, model, tokenizer), parts[0].weight)
        for source, part in zip(sources[1:], parts[1:], strict=True):
            total = _add(total, load_params(source, model, tokenizer), part.weight)
        merged = LoadedModel(_whole_model(config), tokenizer, model, total, 0)
        return FirstModel(merged, first.dtypes(), first.sampling_defaults(), first.model_type())

    ingredients = [
        Ingredient(part.path, source.step, part.weight)
        for part, source in zip(parts, sources, strict=True)
    ]
    return write_first_checkpoint(workdir, read, Origin.of("merge", ingredients))


@jax.jit
def _scaled(params: Params, weight: float) -> Params:
    return jax.tree.map(lambda leaf: weight * leaf, params)


@jax.jit
def _add(total: Params, params: Params, weight: float) -> Params:
    return jax.tree.map(lambda before, leaf: before + weight * leaf, total, params)


def _whole_model(config: Config) -> Config:
    """Return the config of a run whose parameters are all its own."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, init_from=""),
        lora=LoraConfig(),
        optimizer=dataclasses.replace(config.optimizer, freeze=""),
    )


def _check_weights(weights: Sequence[float]) -> None:
    total = math.fsum(weights)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise UserError(f"--weights: sum to {total:g}; expected 1, such as 0.5,0.5")


def _check_alike(sources: Sequence[ModelSource]) -> None:
    """Raise a UserError that names what keeps two models from being added."""
    first, *others = sources
    shape, tokenizer, _ = describe_model(first)
    for source in others:
        other_shape, other_tokenizer, _ = describe_model(source)
        theirs = _identity(other_shape.model)
        for name, value in _identity(shape.model).items():
            if theirs.get(name) != value:
                raise UserError(
                    f"{source.path}: its model.{name} is {theirs.get(name)!r}, that of "
                    f"{first.path} {value!r}; only models of one shape can be merged"
                )
        if other_tokenizer.fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"{source.path}: its tokenizer is not that of {first.path}; a merged model needs "
                "one that all its parts were trained with"
            )


def _identity(config: ModelConfig) -> dict[str, object]:
    # The fields in FREE say how a model is trained or computed, not what it is.
    fields = {"architecture": config.architecture, **dataclasses.asdict(config)}
    return {name: value for name, value in fields.items() if name not in FREE}
