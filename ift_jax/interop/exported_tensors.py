"""A model's tensors as an export writes them: by Hugging Face's names, in the dtypes of the files.

Every process of a run gathers each tensor (of one layer) in turn, and process 0 writes it.
"""

import collections
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ift_jax.errors import UserError
from ift_jax.interop.safetensors_files import DTYPES
from ift_jax.interop.tensor_table import TensorEntry, fuse, leaf_at
from ift_jax.models.model import Params

# The dtypes of safetensors -> torch's names of them.
TORCH_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class ExportedTensor(NamedTuple):
    """A tensor of the export: one of those that hold a parameter, or parts of several.

    Attributes:
        parts: The parameters in it; one, unless projections are fused.
        number: Its place among the names of each part.
        dtype: The dtype, as safetensors spells it.
    """

    parts: tuple[TensorEntry, ...]
    number: int
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the export."""
        return self.parts[0].their_shape

    @property
    def n_bytes(self) -> int:
        """The bytes in the export."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def exported_tensors(
    entries: list[TensorEntry], dtype: str, source_dtypes: Mapping[str, str]
) -> dict[str, ExportedTensor]:
    """Return the tensors of an export by name, in the order of `entries`.

    Args:
        entries: The table of the model's parameters.
        dtype: "float32", "bfloat16", "float16" or "source": as in `source_dtypes`.
        source_dtypes: The name of a tensor -> its dtype in the release ("BF16"). Others have the
            commonest of these, or float32.
    """
    names = [name for entry in entries for name in entry.names]
    dtypes = _dtypes(names, dtype, source_dtypes)
    tensors: dict[str, ExportedTensor] = {}
    for entry in entries:
        for number, name in enumerate(entry.names):
            parts = (*tensors[name].parts, entry) if name in tensors else (entry,)
            in_order = tuple(sorted(parts, key=lambda part: part.first_row))
            tensors[name] = ExportedTensor(in_order, number, dtypes[name])
    return tensors


def _dtypes(names: list[str], dtype: str, source_dtypes: Mapping[str, str]) -> dict[str, str]:
    """Return each tensor's dtype, as safetensors spells it."""
    if dtype != "source":
        spelled = {torch_name: name for name, torch_name in TORCH_DTYPES.items()}
        return dict.fromkeys(names, spelled[dtype])
    known = collections.Counter(source_dtypes[name] for name in names if name in source_dtypes)
    commonest = known.most_common(1)[0][0] if known else "F32"
    return {name: source_dtypes.get(name, commonest) for name in names}


def gatherer(tensors: Mapping[str, ExportedTensor], params: Params) -> Callable[[str], np.ndarray]:
    """Return a function that gathers a tensor from all devices; every process must call it.

    The function raises a UserError if a value does not fit float16.
    """

    def gather_part(entry: TensorEntry, number: int) -> np.ndarray:
        leaf = leaf_at(params, entry.path)
        for index in entry.place(number):
            leaf = jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False)
        values: np.ndarray = multihost_utils.process_allgather(leaf, tiled=True)
        return entry.as_theirs(values)

    def gather(name: str) -> np.ndarray:
        parts, number, dtype = tensors[name]
        cast = [_cast(name, gather_part(part, number), DTYPES[dtype], part) for part in parts]
        return fuse(list(zip(parts, cast, strict=True)))

    return gather


def _cast(name: str, values: np.ndarray, dtype: np.dtype, entry: TensorEntry) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if dtype == np.float16 and not np.isfinite(cast).all() and np.isfinite(values).all():
        raise UserError(
            f"--dtype float16: {name} ({entry.path}) has values up to "
            f"{np.abs(values).max():.3g}; choose bfloat16 or float32"
        )
    return cast
