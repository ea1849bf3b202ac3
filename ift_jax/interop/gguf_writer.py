"""The container of GGUF, written by the package `gguf`; `gguf_file` reads it."""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ift_jax.errors import UserError
from ift_jax.io.write_errors import write_errors


class GgufLayout(NamedTuple):
    """A tensor of a file that is being written.

    Attributes:
        shape: The shape in the order of NumPy.
        type_name: The type of its elements, as GGML names it: "F32", "F16", "BF16" or "Q8_0".
    """

    shape: tuple[int, ...]
    type_name: str

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the array that holds it: of bytes, except for F32 and F16."""
        if self.type_name in ("F32", "F16"):
            return self.shape
        block, block_bytes = gguf_package().GGML_QUANT_SIZES[self._kind]
        return (*self.shape[:-1], self.shape[-1] // block * block_bytes)

    @property
    def stored_dtype(self) -> np.dtype:
        """The dtype of that array."""
        plain = {"F32": np.float32, "F16": np.float16}
        return np.dtype(plain.get(self.type_name, np.uint8))

    @property
    def n_bytes(self) -> int:
        """The bytes of that array."""
        return int(np.prod(self.stored_shape, dtype=np.int64)) * self.stored_dtype.itemsize

    @property
    def _kind(self) -> Any:
        return gguf_package().GGMLQuantizationType[self.type_name]

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Return float32 values as the array that holds them."""
        packed: np.ndarray = gguf_package().quants.quantize(values, self._kind)
        assert packed.shape == self.stored_shape and packed.dtype == self.stored_dtype
        return packed

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """Return the float32 values that an array holds."""
        values: np.ndarray = gguf_package().quants.dequantize(packed, self._kind)
        return values.reshape(self.shape)


def gguf_package() -> Any:
    """Return the package gguf.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ImportError:
        raise UserError(
            "--output: a GGUF file is written with the package gguf: run launch/setup.sh gguf"
        ) from None


def write_gguf(
    path: str,
    architecture: str,
    fields: Mapping[str, Any],
    tensors: Mapping[str, GgufLayout],
    get: Callable[[str], np.ndarray],
) -> None:
    """Write a file, one tensor after the other.

    Args:
        path: The file; one that is there is overwritten.
        architecture: The value of `general.architecture`.
        fields: The other fields: booleans, strings, numbers, and lists of strings or of numbers.
            Whole numbers are written as uint32, in lists as int32, others as float32.
        tensors: The tensors by name, in order.
        get: Returns the array that holds a tensor (`GgufLayout.pack`); called once for each, in
            order.

    Raises:
        WriteError: The file cannot be written.
    """
    gguf = gguf_package()
    writer = gguf.GGUFWriter(path, architecture)
    add_by_type: Mapping[type, Callable[[str, Any], None]] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    for name, value in fields.items():
        add_by_type[type(value)](name, value)
    for name, layout in tensors.items():
        kind = gguf.GGMLQuantizationType[layout.type_name]
        writer.add_tensor_info(
            name, layout.stored_shape, layout.stored_dtype, layout.n_bytes, raw_dtype=kind
        )
    with write_errors(path):
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name in tensors:
                writer.write_tensor_data(np.ascontiguousarray(get(name)))
        finally:
            writer.close()
        with open(path, "rb") as file:
            os.fsync(file.fileno())
