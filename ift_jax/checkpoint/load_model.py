"""A model in memory, with its tokenizer and config, without any data."""

import dataclasses

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


def load_model(source: ModelSource) -> LoadedModel:
    """Read config, tokenizer and parameters onto all devices.

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
    model = build_model(model_config)
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    return LoadedModel(
        config=dataclasses.replace(config, model=model_config),
        tokenizer=tokenizer,
        model=model,
        params=source.params(model, mesh, tokenizer),
        step=source.step,
    )
