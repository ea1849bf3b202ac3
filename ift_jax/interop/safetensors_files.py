"""Tensors in safetensors files. Any part of a tensor is read when it is needed."""

import dataclasses
import functools
import glob
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ift_jax.errors import UserError
from ift_jax.interop.safetensors_header import LENGTH_BYTES, read_header
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.typed_fields import TEXT, TypedFields, object_of, shown
from ift_jax.io.write_errors import write_errors

# The dtypes that a model's weights may have, by the names of safetensors.
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
# The dtypes of quantized weights that some family reads.
PACKED_DTYPES: dict[str, np.dtype] = {"U8": np.dtype(np.uint8)}
INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
Index = tuple[slice | np.ndarray, ...]  # One array at most, of numbers of rows.


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet.

    Attributes:
        shape: The shape of the whole tensor.
        dtype: The dtype, one of `DTYPES`, or of `PACKED_DTYPES` before a family unpacks it.
        read: Reads a part of it into memory of its own, not as a view of a file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]


def open_safetensors(folder: str, packed: Sequence[str] = ()) -> dict[str, Tensor]:
    """Open the tensors of a Hugging Face folder: one file, or the shards that its index names.

    Args:
        folder: The folder.
        packed: Dtypes of `PACKED_DTYPES` that are read besides those of weights.

    Raises:
        UserError: There is no safetensors file (the message says what to do), a file is broken or
            missing, the index names a file outside the folder, or a tensor is not floating point.
    """
    index = os.path.join(folder, INDEX)
    if not os.path.exists(index):
        return _open_single(folder, packed)
    fields = TypedFields(read_json_object(index), index)
    weight_map = fields.get("weight_map", object_of(TEXT))
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        if os.path.basename(shard) != shard or not shard.endswith(".safetensors"):
            raise UserError(
                f"{index}: names {shown(shard)}; expected a .safetensors file beside it"
            )
        of_shard = open_file(os.path.join(folder, shard), packed)
        if twice := sorted(set(of_shard) & set(tensors)):
            raise UserError(f"{index}: two shards hold {some(twice)}; expected each tensor once")
        tensors |= of_shard
        listed = {name for name, file in weight_map.items() if file == shard}
        if absent := sorted(listed - set(of_shard)):
            raise UserError(f"{index}: names {some(absent)}, which {shard} does not hold")
    return tensors


def _open_single(folder: str, packed: Sequence[str]) -> dict[str, Tensor]:
    """Open a folder without an index."""
    single = os.path.join(folder, SINGLE_FILE)
    if os.path.exists(single):
        return open_file(single, packed)
    pickles = [os.path.join(glob.escape(folder), pattern) for pattern in ("*.bin", "*.pt*")]
    if any(glob.glob(pattern) for pattern in pickles):
        raise UserError(
            f"{folder}: only pickled weights (.bin), which may run any code when "
            "they are read; convert them where you trust them: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(..., "
            "safe_serialization=True)"
        )
    raise UserError(f"{folder}: expected {SINGLE_FILE} or {INDEX}")


def open_file(path: str, packed: Sequence[str] = ()) -> dict[str, Tensor]:
    """Open the tensors of one file; `packed` is as for `open_safetensors`.

    Raises:
        UserError: The file is missing or broken (`read_header`), or a tensor is not floating point.
    """
    if not os.path.exists(path):
        raise UserError(f"{path}: no such file; a shard is missing")
    known = DTYPES | {name: PACKED_DTYPES[name] for name in packed}
    tensors = {}
    for name, (dtype_name, shape, offset) in read_header(path).items():
        if dtype_name not in known:
            raise UserError(
                f"{path}: {name} is {dtype_name}; expected one of {', '.join(DTYPES)} "
                "(of quantized weights, only GPT-OSS in MXFP4 is read)"
            )
        dtype = known[dtype_name]
        read = functools.partial(_read, path, offset, shape, dtype)
        tensors[name] = Tensor(shape, dtype, read)
    return tensors


def _read(
    path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype, index: Index
) -> np.ndarray:
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)[index]
    # The file is mapped for this one read: pages of a mapping that stays count as our memory.
    return np.array(np.memmap(path, dtype, "r", offset, shape)[index])


def write_safetensors(
    path: str,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    get: Callable[[str], np.ndarray],
    writes: bool = True,
) -> None:
    """Write a file, one tensor after the other.

    Args:
        path: The file.
        tensors: The shape and the dtype of each tensor by name.
        get: Returns the values of a tensor; called once for each, in order.
        writes: Whether this process writes; if not, it only calls `get`, which may be a collective
            operation of all processes.

    Raises:
        WriteError: The file exists already, or cannot be written.
    """
    if not writes:
        for name in tensors:
            get(name)
        return
    with write_errors(path), open(path, "xb") as file:
        file.write(_header(tensors))
        for name, (shape, dtype) in tensors.items():
            values = get(name)
            assert values.shape == shape and values.dtype == dtype
            file.write(np.ascontiguousarray(values).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _header(tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> bytes:
    """Return the beginning of a file: the header and its length."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (shape, dtype) in tensors.items():
        end = start + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": names[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The data are aligned to 8 bytes.
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def some(names: list[Any]) -> str:
    """Return the first five names, and how many there are if there are more."""
    first = ", ".join(map(str, names[:5]))
    return first + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
