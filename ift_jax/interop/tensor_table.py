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
        first_row: The first of their rows that ours is.
        fused_rows: All of their rows, if others of our parameters are among them; 0: ours is all.
    """

    path: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    stacked: bool
    transposed: bool
    first_row: int = 0
    fused_rows: int = 0

    @property
    def part_shape(self) -> tuple[int, ...]:
        """The shape of what ours is in each of their tensors."""
        shape = self.shape[1:] if self.stacked else self.shape
        return shape[::-1] if self.transposed else shape

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of each of their tensors."""
        return (self.fused_rows, *self.part_shape[1:]) if self.fused_rows else self.part_shape


def tensor_table(model: Model, family: ModelFamily[Any]) -> list[TensorEntry]:
    """Return an entry for each parameter of a model with stacked layers."""
    names = family.tensor_names(model.config)
    entries = [_entry(path, leaf.shape, names) for path, leaf in leaves(model.shapes)]
    return _with_rows(entries, names)


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


def _with_rows(entries: list[TensorEntry], names: TensorNames) -> list[TensorEntry]:
    """Return the entries with the rows that each has in a tensor that it shares with others."""
    by_tensor: dict[str, list[TensorEntry]] = {}
    for entry in entries:
        by_tensor.setdefault(entry.names[0], []).append(entry)
    rows = {}
    for sharing in by_tensor.values():
        if len(sharing) == 1:
            continue
        first_row = 0
        total = sum(entry.part_shape[0] for entry in sharing)
        for entry in sorted(sharing, key=lambda entry: _place(entry, names)):
            rows[entry.path] = dataclasses.replace(entry, first_row=first_row, fused_rows=total)
            first_row += entry.part_shape[0]
    return [rows.get(entry.path, entry) for entry in entries]


def _place(entry: TensorEntry, names: TensorNames) -> int:
    """Return where the family lists the module of a parameter."""
    above, _, below = entry.path.rpartition("layers.")
    return list(names.stacks[f"{above}layers"].modules).index(below.rpartition(".")[0])


def leaves(tree: Params) -> Iterable[tuple[str, Any]]:
    """Return the (dotted path, leaf) pairs of nested dicts."""
    return traverse_util.flatten_dict(tree, sep=".").items()


def leaf_at(tree: Params, path: str) -> Any:
    """Return the leaf at a dotted path."""
    return functools.reduce(operator.getitem, path.split("."), tree)
