"""What ift_jax knows about a model family of Hugging Face, and the registry of all families.

A family is one `model_type` of `config.json`. It is a class in a file of its own in
`ift_jax/interop/families/`, together with the names of its tensors:

    @register_family
    class Olmo2(DecoderFamily):
        model_type = "olmo2"
        architecture = "Olmo2ForCausalLM"
        fixed = {"norm_placement": "post", "qk_norm": "full"}
        ...

Every module in that folder is imported with the package, so a new file needs no other change.
"""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from ift_jax.config.schema import ModelConfig
from ift_jax.interop.config_fields import ConfigFields
from ift_jax.interop.ignored_fields import IGNORED_FIELDS
from ift_jax.interop.safetensors_files import Tensor
from ift_jax.interop.tensor_names import TensorNames
from ift_jax.io.typed_fields import Kind

ConfigT = TypeVar("ConfigT", bound=ModelConfig)
TensorT = TypeVar("TensorT")
FamilyT = TypeVar("FamilyT", bound="type[ModelFamily[Any]]")


class ModelFamily(abc.ABC, Generic[ConfigT]):
    """The mapping between a family's `config.json` and tensors, and our config and parameters.

    Attributes:
        model_type: The family's name in `config.json`.
        architecture: The class of `transformers` that holds a model with its language-model head.
        config_class: The dataclass of our config.
        defaults: The values of fields that a `config.json` may leave out: those of the family's
            configuration class in `transformers`. None: computed from other fields.
        nullable: Fields that may be null, which is not the same as absent.
        ignored: Fields that are not read because they change no logits, and their kinds. Every
            field that is neither read nor ignored is refused.
        export_rank: Families are tried in this order when a model is exported, and the first one
            that can express it is written. Plain models should be exported as the families that
            everybody reads.
        packed_dtypes: Dtypes of safetensors, besides those of weights, that `unpack` reads.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    config_class: ClassVar[type]
    defaults: ClassVar[dict[str, Any]] = {}
    nullable: ClassVar[frozenset[str]] = frozenset()
    ignored: ClassVar[Mapping[str, Kind]] = IGNORED_FIELDS
    export_rank: ClassVar[int] = 1
    packed_dtypes: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def read(self, fields: ConfigFields) -> ConfigT:
        """Return our config; raise a UserError for a value that is not supported."""

    @abc.abstractmethod
    def write(self, config: ConfigT) -> dict[str, Any]:
        """Return the fields of a `config.json`.

        A family need not be able to express the config: the caller reads the result back and
        compares.
        """

    def by_released_names(self, tensors: Mapping[str, TensorT]) -> Mapping[str, TensorT]:
        """Return a folder's tensors by the names that releases have, where others are known too."""
        return tensors

    def export_note(self, config: ConfigT) -> str:
        """Return what a user should know about an exported model; "": nothing."""
        return ""

    def with_token_ids(self, fields: dict[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a config.json with the ids of a tokenizer's special tokens."""
        return {**fields, **ids}

    def unpack(self, tensors: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
        """Return the tensors of a folder by the names and in the layout of `tensor_names`.

        A family whose releases hold several of them in one, or quantized, overrides this.

        Args:
            tensors: The tensors of the folder, not read yet.
            where: What messages call the folder.

        Raises:
            UserError: They are not such tensors.
        """
        return tensors

    @abc.abstractmethod
    def tensor_names(self, config: ConfigT) -> TensorNames:
        """Return what the tensors of a model with this config are called."""


_FAMILIES: dict[str, ModelFamily[Any]] = {}


def register_family(family: FamilyT) -> FamilyT:
    """Add a family to the registry; a class decorator."""
    if family.model_type in _FAMILIES:
        raise ValueError(f"model_type {family.model_type!r} is registered twice")
    _FAMILIES[family.model_type] = family()
    return family


def registered_families() -> list[ModelFamily[Any]]:
    """Return all families, in the order in which an export tries them."""
    return sorted(_FAMILIES.values(), key=lambda family: (family.export_rank, family.model_type))
