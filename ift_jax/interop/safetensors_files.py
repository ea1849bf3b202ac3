"""Folders of models, and their tensors, of which any part is read when needed: safetensors."""

import contextlib
import dataclasses
import functools
import glob
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ift_jax.errors import UserError

# Of safetensors; what a model's weights may be.
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
INDEX = "model.safetensors.index.json"
Index = tuple[slice, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet; `read` gives a part of it, not as a view of a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[Index], np.ndarray]


def open_safetensors(folder: str) -> dict[str, Tensor]:
    """The tensors of a Hugging Face folder: one file, or the shards that its index names.

    Raises:
        UserError: no safetensors there (what to do is said), a broken or missing file, an index
            that names a file outside the folder, or a tensor that is not floating point.
    """
    index = os.path.join(folder, INDEX)
    single = os.path.join(folder, "model.safetensors")
    if not os.path.exists(index):
        if os.path.exists(single):
            return _open_file(single)
        if any(glob.glob(os.path.join(glob.escape(folder), kind)) for kind in ("*.bin", "*.pt*")):
            raise UserError(
                f"{folder}: only pickled weights (.bin), which may run any code when "
                "they are read; convert them where you trust them: "
                "AutoModelForCausalLM.from_pretrained(...).save_pretrained(..., "
                "safe_serialization=True)"
            )
        raise UserError(f"{folder}: expected model.safetensors or {INDEX}")
    weight_map = read_json(index).get("weight_map")
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


def read_json(path: str) -> dict[str, Any]:
    """A JSON object; a UserError names the file where it holds something else."""
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: expected a JSON object ({error})") from error


@contextlib.contextmanager
def new_folder(path: str, flag: str, writes: bool = True) -> Iterator[str]:
    """A folder to fill (by this process, if it writes), which gets its name when it is whole.

    Raises:
        UserError: `path` is there and not empty; the message names the flag.
    """
    if os.path.isdir(path) and os.listdir(path):
        raise UserError(f"{flag} {path}: is not empty; name a new folder")
    partial = path.rstrip("/") + ".partial"
    if writes:
        shutil.rmtree(partial, ignore_errors=True)
        os.makedirs(partial)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if writes:
        if os.path.isdir(path):
            os.rmdir(path)
        os.replace(partial, path)


def write_files(folder: str, files: Mapping[str, Any]) -> None:
    """Writes each file (its bytes, or what is to be JSON) whole or not at all."""
    for name, content in files.items():
        if not isinstance(content, bytes):
            content = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.replace(path + ".new", path)


def some(names: list[Any]) -> str:
    """The first five, and how many there are."""
    shown = ", ".join(map(str, names[:5]))
    return shown + (f", ... ({len(names)} in all)" if len(names) > 5 else "")


def _open_file(path: str) -> dict[str, Tensor]:
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            shape = tuple(int(n) for n in entry["shape"])
            first, last = entry["data_offsets"]
            if entry["dtype"] not in DTYPES:
                raise UserError(
                    f"{path}: {name} is {entry['dtype']}; expected one of {', '.join(DTYPES)} "
                    "(quantised weights are not read)"
                )
            dtype = DTYPES[entry["dtype"]]
            wanted = math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or first < 0 or last - first != wanted:
                raise ValueError(f"{name} of shape {shape} has {last - first} bytes")
            if 8 + length + last > size:
                raise ValueError(f"it ends before {name} does; was it copied wholly?")
            read = functools.partial(_read, path, 8 + length + first, shape, dtype)
            tensors[name] = Tensor(shape, dtype, read)
        return tensors
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a shard is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file: {error}") from error


def _read(
    path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype, index: Index
) -> np.ndarray:
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)[index]
    # Mapped for this one read: pages of a mapping that stays would count as our memory.
    return np.array(np.memmap(path, dtype, "r", offset, shape)[index])


def write_safetensors(
    path: str,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    get: Callable[[str], np.ndarray],
    writes: bool = True,
) -> None:
    """Writes a file tensor by tensor (name -> shape, dtype), asking `get` for each in turn.

    A process that does not write only takes part in gathering.
    """
    if not writes:
        for name in tensors:
            get(name)
        return
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (shape, dtype) in tensors.items():
        end = at + math.prod(shape) * dtype.itemsize
        entry = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [at, end]}
        header[name], at = entry, end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (shape, dtype) in tensors.items():
            values = get(name)
            assert values.shape == shape and values.dtype == dtype
            file.write(np.ascontiguousarray(values).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
