"""The table of a model's parameters and the tensors that hold them in a Hugging Face folder."""

import dataclasses
import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from ift_jax.interop.model_family import ModelFamily
from ift_jax.interop.tensor_names import EXPERT, TensorNames
from ift_jax.models.model import Model, Params


@dataclasses.dataclass(frozen=True)
class TensorEntry:
    """One of our parameters and the tensors that hold it.

    Attributes:
        path: The dotted path of our parameter: "layers.mlp.up.weight".
        names: Their tensors, one for each layer, or for each expert of each layer, in order.
        shape: The shape of our parameter, with the axes of the stack.
        stack: The sizes of our leading axes that number their tensors: of layers, and of experts
            where each has a tensor of its own. Empty if ours is one tensor.
        transposed: Whether theirs is (out, in) where ours is (in, out).
        convolves: Whether theirs has an axis of size 1 between these two.
        first_row: The first of their rows, or interleaved columns, that ours is.
        fused_rows: All of their rows, or columns, if others of our parameters are among them; 0:
            ours is all.
        interleaved: Whether their last axis alternates between our parameters.
        scattered: Their rows that ours are, in our order, if they do not follow each other.
        scalar: Whether theirs has no axes, where ours has one of size 1.
    """

    path: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    stack: tuple[int, ...]
    transposed: bool
    convolves: bool = False
    first_row: int = 0
    fused_rows: int = 0
    interleaved: bool = False
    scattered: tuple[int, ...] = ()
    scalar: bool = False

    @property
    def part_shape(self) -> tuple[int, ...]:
        """The shape of what ours is in each of their tensors."""
        shape = self.shape[len(self.stack) :]
        return shape[::-1] if self.transposed else shape

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of each of their tensors."""
        if self.scalar:
            return ()
        if self.convolves:
            return (self.part_shape[0], 1, self.part_shape[1])
        if not self.fused_rows:
            return self.part_shape
        if self.interleaved:
            return (*self.part_shape[:-1], self.fused_rows)
        return (self.fused_rows, *self.part_shape[1:])

    @property
    def fused_axis(self) -> int:
        """The axis of their tensor along which our parameters are fused."""
        return len(self.part_shape) - 1 if self.interleaved else 0

    def their_rows(self, rows: slice) -> slice | np.ndarray:
        """Return where rows of ours are along `fused_axis`."""
        if self.scattered:
            return np.array(self.scattered[rows])
        start, stop, _ = rows.indices(self.part_shape[self.fused_axis])
        step = self.fused_rows // self.part_shape[self.fused_axis] if self.interleaved else 1
        first = self.first_row + start * step
        return slice(first, first + (stop - start) * step, step)

    def place(self, number: int) -> tuple[int, ...]:
        """Return the place in our stack of the tensor of this number in `names`."""
        return tuple(int(i) for i in np.unravel_index(number, self.stack))

    def as_theirs(self, values: np.ndarray) -> np.ndarray:
        """Return one of our stack in their orientation."""
        values = values.T if self.transposed else values
        return values.reshape(self.their_shape) if self.convolves or self.scalar else values


def tensor_table(model: Model, family: ModelFamily[Any]) -> list[TensorEntry]:
    """Return an entry for each parameter of a model with stacked layers."""
    names = family.tensor_names(model.config)
    entries = [_entry(path, leaf.shape, names) for path, leaf in leaves(model.shapes)]
    return _with_rows(entries, names)


def _entry(path: str, shape: tuple[int, ...], names: TensorNames) -> TensorEntry:
    transposed = path == "head" or path.endswith(".weight")
    stack, below = _in_stack(path, names)
    if not stack:
        return TensorEntry(path, (names.outside[path],), shape, (), transposed)
    layer = names.stacks[stack]
    module, _, kind = below.rpartition(".")
    convolves = kind == "conv"
    if below in layer.modules:
        name = layer.modules[below]
        transposed = convolves
    else:
        name = f"{layer.modules[module]}.{'bias' if kind == 'bias' else 'weight'}"
    sizes = shape[:2] if EXPERT in name else shape[:1]
    numbers = layer.numbers or range(shape[0])
    every_tensor = tuple(
        f"{layer.prefix}.{numbers[place[0]]}.{name}".replace(EXPERT, str(place[-1]))
        for place in np.ndindex(sizes)
    )
    return TensorEntry(
        path,
        every_tensor,
        shape,
        sizes,
        transposed,
        convolves,
        interleaved=name in layer.interleaved,
        scattered=layer.rows.get(module, ()),
        scalar=name in layer.scalars,
    )


def _in_stack(path: str, names: TensorNames) -> tuple[str, str]:
    """Return the stack of a parameter and its path in there; ("", path) outside of the layers."""
    stack = next((stack for stack in names.stacks if path.startswith(f"{stack}.")), "")
    return stack, path.removeprefix(f"{stack}.")


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
        total = sum(entry.part_shape[entry.fused_axis] for entry in sharing)
        for entry in sorted(sharing, key=lambda entry: _place(entry, names)):
            rows[entry.path] = dataclasses.replace(entry, first_row=first_row, fused_rows=total)
            first_row += 1 if entry.interleaved else entry.part_shape[0]
    return [rows.get(entry.path, entry) for entry in entries]


def _place(entry: TensorEntry, names: TensorNames) -> int:
    """Return where the family lists the module of a parameter."""
    stack, below = _in_stack(entry.path, names)
    modules = names.stacks[stack].modules
    return list(modules).index(below if below in modules else below.rpartition(".")[0])


def fuse(parts: Sequence[tuple[TensorEntry, np.ndarray]]) -> np.ndarray:
    """Return one of their tensors from the parts that our parameters are, in order."""
    entry, values = parts[0]
    if len(parts) == 1:
        return values
    arrays = [array for _, array in parts]
    if entry.scattered:
        fused = np.empty(entry.their_shape, values.dtype)
        for part, array in parts:
            fused[part.their_rows(slice(None))] = array
        return fused
    if entry.interleaved:
        return np.stack(arrays, axis=-1).reshape(entry.their_shape)
    return np.concatenate(arrays)


def leaves(tree: Params) -> Iterable[tuple[str, Any]]:
    """Return the (dotted path, leaf) pairs of nested dicts."""
    return traverse_util.flatten_dict(tree, sep=".").items()


def leaf_at(tree: Params, path: str) -> Any:
    """Return the leaf at a dotted path."""
    return functools.reduce(operator.getitem, path.split("."), tree)
