"""A model in memory, with its tokenizer and config, without any data."""

import dataclasses
from typing import NamedTuple

from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.checkpoint.open_model import WorkdirSource
from ift_jax.config.schema import Config, FormatConfig, MeshConfig
from ift_jax.models.model import Model, Params, build_model, resolve_vocab
from ift_jax.sharding.mesh import make_mesh
from ift_jax.text.tokenizers.base import Tokenizer


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model with its weights.

    Attributes:
        config: The config, with `model.vocab_size` filled in.
        tokenizer: The model's tokenizer.
        model: The model, without adapters.
        params: Its parameters, float32, sharded over all devices.
        step: The step of the checkpoint; 0 for a released model.
    """

    config: Config
    tokenizer: Tokenizer
    model: Model
    params: Params
    step: int


class DescribedModel(NamedTuple):
    """A model without its weights.

    Attributes:
        config: The config, with `model.vocab_size` filled in.
        tokenizer: The model's tokenizer.
        model: The model, without adapters.
    """

    config: Config
    tokenizer: Tokenizer
    model: Model


def describe_model(source: ModelSource) -> DescribedModel:
    """Read all of a model but its parameters.

    Raises:
        UserError: What the source holds cannot be read.
    """
    tokenizer = source.tokenizer()
    config = source.config
    if not isinstance(source, WorkdirSource):
        template = "model" if tokenizer.chat_template else "chatml"
        config = dataclasses.replace(config, format=FormatConfig(template))
    model_config = config.model
    # The vocabulary is smaller if it is not resolved yet, or if the tokenizer got a padding token.
    if model_config.vocab_size < tokenizer.vocab_size:
        unsized = dataclasses.replace(model_config, vocab_size=0)
        model_config = resolve_vocab(unsized, tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model_config)
    return DescribedModel(config, tokenizer, build_model(model_config))


def load_model(source: ModelSource) -> LoadedModel:
    """Read config, tokenizer and parameters onto all devices.

    Raises:
        UserError: What the source holds cannot be read.
    """
    config, tokenizer, model = describe_model(source)
    params = load_params(source, model, tokenizer)
    return LoadedModel(config, tokenizer, model, params, source.step)


def load_params(source: ModelSource, model: Model, tokenizer: Tokenizer) -> Params:
    """Read the parameters of a described model, float32, sharded over all devices."""
    return source.params(model, make_mesh(MeshConfig(data=1, fsdp=-1)), tokenizer)
