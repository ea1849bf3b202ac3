"""The table of a model's parameters and the tensors that hold them in a Hugging Face folder."""

import dataclasses
import functools
import operator
from collections.abc import Iterable
from typing import Any

from flax import traverse_util

from ift_jax.interop.model_family import ModelFamily
from ift_jax.interop.tensor_names import TensorNames
from ift_jax.models.model import Model, Params


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One of our parameters and the tensors that hold it.

    Attributes:
        path: The dotted path of our parameter: "layers.mlp.up.weight".
        names: Their tensors: one for each layer, in order, if ours is stacked.
        shape: The shape of our parameter, with the axis of layers.
        stacked: Whether ours has a leading axis of layers.
        transposed: Whether theirs is (out, in) where ours is (in, out).
    """

    path: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    stacked: bool
    transposed: bool

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of each of their tensors."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[::-1] if self.transposed else shape


def tensor_table(model: Model, family: ModelFamily[Any]) -> list[TensorEntry]:
    """Return an entry for each parameter of a model with stacked layers."""
    names = family.tensor_names(model.config)
    return [_entry(path, leaf.shape, names) for path, leaf in leaves(model.shapes)]


def _entry(path: str, shape: tuple[int, ...], names: TensorNames) -> TensorEntry:
    transposed = path == "head" or path.endswith(".weight")
    above, stacked, below = path.rpartition("layers.")
    if not stacked:
        return TensorEntry(path, (names.outside[path],), shape, False, transposed)
    layer = names.stacks[f"{above}layers"]
    module, _, kind = below.rpartition(".")
    name = f"{layer.modules[module]}.{'bias' if kind == 'bias' else 'weight'}"
    every_layer = tuple(f"{layer.prefix}.{i}.{name}" for i in range(shape[0]))
    return TensorEntry(path, every_layer, shape, True, transposed)


def leaves(tree: Params) -> Iterable[tuple[str, Any]]:
    """Return the (dotted path, leaf) pairs of nested dicts."""
    return traverse_util.flatten_dict(tree, sep=".").items()


def leaf_at(tree: Params, path: str) -> Any:
    """Return the leaf at a dotted path."""
    return functools.reduce(operator.getitem, path.split("."), tree)
