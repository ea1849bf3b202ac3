"""What a model card is about: an export, and what its model goes back to."""

import dataclasses
import functools

from ift_jax.checkpoint.lineage import BaseModel, Origin, base_models, label
from ift_jax.checkpoint.load_model import DescribedModel, LoadedModel
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.checkpoint.open_model import WorkdirSource
from ift_jax.config.schema import DecoderConfig
from ift_jax.io.hub_names import is_hub_name, name_in_cache


@dataclasses.dataclass(frozen=True)
class Subject:
    """An export.

    Attributes:
        source: Where its model came from.
        model: The model with its config and tokenizer.
        output: The folder.
        given_base: The base model's name, if the user gave one.
        is_adapter: Whether the folder holds adapters for PEFT alone.
        flags: The other flags of the command.
    """

    source: ModelSource
    model: LoadedModel | DescribedModel
    output: str
    given_base: str = ""
    is_adapter: bool = False
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return label(self.output)

    @property
    def is_decoder(self) -> bool:
        """Whether the model is a decoder."""
        return isinstance(self.source.config.model, DecoderConfig)

    @property
    def run(self) -> WorkdirSource | None:
        """The run that trained the model; None if the workdir's model is as it was made."""
        source = self.source
        return source if isinstance(source, WorkdirSource) and source.step > 0 else None

    @functools.cached_property
    def merged(self) -> Origin | None:
        """What an untrained model is the mean of; None if it is none."""
        if self.run or not isinstance(self.source, WorkdirSource):
            return None
        origin = Origin.read(self.source.local)
        return origin if origin and origin.command == "merge" else None

    @functools.cached_property
    def bases(self) -> list[BaseModel]:
        """The models that this one goes back to; the user knows their names best."""
        if isinstance(self.source, WorkdirSource):
            bases = base_models(self.source.local, self.source.config)
        else:
            bases = [BaseModel(label(self.source.path), name_in_cache(self.source.path))]
        if not self.given_base:
            return bases
        hub_name = self.given_base if is_hub_name(self.given_base) else ""
        runs = bases[0].runs if len(bases) == 1 else ()
        return [BaseModel(label(self.given_base), hub_name, runs)]

    @property
    def base_name(self) -> str:
        """What code calls the base model; "" if there is none, or more than one."""
        if len(self.bases) != 1:
            return ""
        return self.bases[0].hub_name or self.bases[0].label
