"""Tensors in safetensors files. Any part of a tensor is read when it is needed."""

import dataclasses
import functools
import glob
import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_object, parse_json, read_json_object

# The dtypes that a model's weights may have, by the names of safetensors.
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
INDEX = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
Index = tuple[slice, ...]

# A file begins with the length of its header, a little-endian integer of so many bytes.
_LENGTH_BYTES = 8


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet.

    Attributes:
        shape: The shape of the whole tensor.
        dtype: The dtype, one of `DTYPES`.
        read: Reads a part of it into memory of its own, not as a view of a file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]


def open_safetensors(folder: str) -> dict[str, Tensor]:
    """Open the tensors of a Hugging Face folder: one file, or the shards that its index names.

    Raises:
        UserError: There is no safetensors file (the message says what to do), a file is broken or
            missing, the index names a file outside the folder, or a tensor is not floating point.
    """
    index = os.path.join(folder, INDEX)
    if not os.path.exists(index):
        return _open_single(folder)
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index}: expected a field weight_map, tensors and their files")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(map(str, weight_map.values()))):
        if os.path.basename(shard) != shard or not shard.endswith(".safetensors"):
            raise UserError(f"{index}: names {shard!r}; expected a .safetensors file beside it")
        tensors |= _open_file(os.path.join(folder, shard))
    if absent := sorted(set(weight_map) - set(tensors)):
        raise UserError(f"{index}: names {some(absent)}, which no shard holds")
    return tensors


def _open_single(folder: str) -> dict[str, Tensor]:
    """Open a folder without an index."""
    single = os.path.join(folder, SINGLE_FILE)
    if os.path.exists(single):
        return _open_file(single)
    pickles = [os.path.join(glob.escape(folder), pattern) for pattern in ("*.bin", "*.pt*")]
    if any(glob.glob(pattern) for pattern in pickles):
        raise UserError(
            f"{folder}: only pickled weights (.bin), which may run any code when "
            "they are read; convert them where you trust them: "
            "AutoModelForCausalLM.from_pretrained(...).save_pretrained(..., "
            "safe_serialization=True)"
        )
    raise UserError(f"{folder}: expected {SINGLE_FILE} or {INDEX}")


def _open_file(path: str) -> dict[str, Tensor]:
    """Open the tensors of one file."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            header_length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if header_length > size:
                raise ValueError("its header is longer than the file")
            header = parse_json(file.read(header_length), f"{path}: its header")
        header = json_object(header, f"{path}: its header")
        header.pop("__metadata__", None)
        data_start = _LENGTH_BYTES + header_length
        return {
            name: _tensor(path, name, entry, data_start, size) for name, entry in header.items()
        }
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a shard is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from error


def _tensor(path: str, name: str, entry: dict[str, Any], data_start: int, size: int) -> Tensor:
    """Check a tensor's entry in the header.

    Args:
        path: The file.
        name: The tensor.
        entry: What the header says of it.
        data_start: Where the data begin in the file, in bytes.
        size: The size of the file in bytes.

    Raises:
        UserError: The tensor is not floating point.
        ValueError: The entry does not fit the file.
    """
    shape = tuple(int(n) for n in entry["shape"])
    first, last = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise UserError(
            f"{path}: {name} is {entry['dtype']}; expected one of {', '.join(DTYPES)} "
            "(quantized weights are not read)"
        )
    dtype = DTYPES[entry["dtype"]]
    n_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or first < 0 or last - first != n_bytes:
        raise ValueError(f"{name} of shape {shape} has {last - first} bytes")
    if data_start + last > size:
        raise ValueError(f"it ends before {name} does; was it copied wholly?")
    read = functools.partial(_read, path, data_start + first, shape, dtype)
    return Tensor(shape, dtype, read)


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
    """
    if not writes:
        for name in tensors:
            get(name)
        return
    with open(path, "wb") as file:
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
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def some(names: list[Any]) -> str:
    """Return the first five names, and how many there are if there are more."""
    shown = ", ".join(map(str, names[:5]))
    return shown + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
