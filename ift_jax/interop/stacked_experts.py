"""Folders that hold the projections of all experts of a layer in two tensors (Qwen3.5-MoE)."""

import functools
from collections.abc import Mapping

import numpy as np

from ift_jax.errors import UserError
from ift_jax.interop.safetensors_files import Index, Tensor

_GATE_UP, _DOWN = ".mlp.experts.gate_up_proj", ".mlp.experts.down_proj"


def split_stacked_experts(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the same tensors with one for each projection of each expert.

    `gate_up_proj` is (experts, 2 * hidden units, width), gates first; `down_proj` is (experts,
    width, hidden units). Other tensors are returned as they are.

    Args:
        tensors: The tensors of a folder, not read yet.
        where: What messages call the folder.

    Raises:
        UserError: A stacked tensor has another shape.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.endswith((_GATE_UP, _DOWN)):
            split[name] = tensor
            continue
        if len(tensor.shape) != 3 or (name.endswith(_GATE_UP) and tensor.shape[1] % 2):
            raise UserError(
                f"{where}: {name} has the shape {tensor.shape}; expected (experts, rows, columns), "
                "with as many rows of gates as of what they gate"
            )
        n_experts, n_rows, _ = tensor.shape
        layer = name.rpartition(".")[0]
        parts = {"down_proj": slice(0, n_rows)}
        if name.endswith(_GATE_UP):
            half = n_rows // 2
            parts = {"gate_proj": slice(0, half), "up_proj": slice(half, n_rows)}
        for expert in range(n_experts):
            for part, rows in parts.items():
                split[f"{layer}.{expert}.{part}.weight"] = _part(tensor, expert, rows)
    return split


def _part(stacked: Tensor, expert: int, rows: slice) -> Tensor:
    """Return the tensor that is these rows of an expert."""
    shape = (rows.stop - rows.start, stacked.shape[2])
    return Tensor(shape, stacked.dtype, functools.partial(_read, stacked, expert, rows))


def _read(stacked: Tensor, expert: int, rows: slice, index: Index) -> np.ndarray:
    wanted, columns = index
    assert isinstance(wanted, slice)
    start, stop, step = wanted.indices(rows.stop - rows.start)
    here = slice(rows.start + start, rows.start + stop, step)
    return stacked.read((slice(expert, expert + 1), here, columns))[0]
