"""The container of GGUF: fields and tensors of a file, with every length held against its size.

A file is a header, fields (name, type, value), the name, shape, type and place of each tensor, and
the data. Lengths are 64-bit numbers, so a damaged file asks for arrays of 10^18 items or strings of
exabytes: nothing is allocated, and nothing is repeated, before the rest of the file is known to be
long enough. The rules are those of llama.cpp (ggml/src/gguf.cpp).
"""

import math
import mmap
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ift_jax.errors import UserError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_DIMENSIONS = 4
_MOST_ELEMENTS = 1 << 60
_DEFAULT_ALIGNMENT = 32
_LONGEST_NAME = 65_535
# The types of fields. Numbers: their struct format.
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_BOOL, _STRING, _ARRAY = 7, 8, 9
_SHORTEST_FIELD = 8 + 4 + 1  # The bytes of a field with an empty name and a value of one byte.
_SHORTEST_TENSOR = 8 + 4 + 4 + 8


class GgufTensor(NamedTuple):
    """A tensor of a file.

    Attributes:
        shape: The shape in the order of NumPy, the fastest axis last.
        type_id: The type of its elements, as GGML numbers them.
        offset: Where its data begin in the file, in bytes.
    """

    shape: tuple[int, ...]
    type_id: int
    offset: int


class GgufFile(NamedTuple):
    """What a file holds.

    Attributes:
        fields: The fields by name: numbers, booleans, strings, and lists of them.
        tensors: The tensors by name.
    """

    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]


# Returns the bytes of so many elements of a type; raises a ValueError if it cannot have so many.
SizeOf = Callable[[str, int, tuple[int, ...]], int]


def read_gguf(path: str, size_of: SizeOf) -> GgufFile:
    """Read the fields of a file, and where its tensors are.

    Args:
        path: The file.
        size_of: Returns the bytes of a tensor's data from its name, type and shape. It may raise a
            UserError.

    Raises:
        UserError: The file cannot be read, or is no GGUF file in all its parts.
    """
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError:  # An empty file cannot be mapped.
        raise UserError(f"{path}: not a whole GGUF file: it is empty") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    with content:
        try:
            return _read(_Cursor(content), size_of)
        except _Broken as error:
            raise UserError(f"{path}: not a whole GGUF file: {error}") from None


class _Broken(Exception):
    """What is wrong with a file; the message says it."""


class _Cursor:
    """A place in a file, from which values are read in order."""

    def __init__(self, content: mmap.mmap):
        self.place = 0
        self._content = content
        self._size = len(content)

    @property
    def n_left(self) -> int:
        """The bytes from here to the end."""
        return self._size - self.place

    def take(self, n_bytes: int, what: str) -> bytes:
        """Return the next bytes."""
        if n_bytes > self.n_left:
            raise _Broken(
                f"{what} at byte {self.place:,} needs {n_bytes:,} bytes, and {self.n_left:,} follow"
            )
        start = self.place
        self.place += n_bytes
        return self._content[start : self.place]

    def number(self, code: str, what: str) -> Any:
        """Return the next number, little-endian."""
        return struct.unpack("<" + code, self.take(struct.calcsize(code), what))[0]

    def string(self, what: str) -> str:
        """Return the next string: its length, then its bytes."""
        content = self.take(self.number("Q", what), what)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise _Broken(f"{what} is not UTF-8 (byte {error.start + 1})") from None

    def count(self, shortest: int, what: str, code: str = "Q") -> int:
        """Return the next number, of items that have so many bytes or more."""
        n = int(self.number(code, what))
        if n * shortest > self.n_left:
            raise _Broken(f"{what} is {n:,}, too many for the {self.n_left:,} bytes that follow")
        return n


def _read(cursor: _Cursor, size_of: SizeOf) -> GgufFile:
    if cursor.take(4, "the magic number") != _MAGIC:
        raise _Broken("it does not begin with GGUF")
    version = cursor.number("I", "the version")
    if version not in _VERSIONS:
        big_endian = " (it is big-endian)" if version and not version & 0xFFFF else ""
        raise _Broken(f"its version is {version}{big_endian}; expected 2 or 3")
    n_tensors = cursor.count(_SHORTEST_TENSOR, "the number of tensors")
    n_fields = cursor.count(_SHORTEST_FIELD, "the number of fields")
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        name = _name(cursor, "a field", fields)
        fields[name] = _value(cursor, cursor.number("I", name), name)
    infos = [_tensor_info(cursor) for _ in range(n_tensors)]
    alignment = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise _Broken(f"general.alignment is {alignment!r}; expected a power of 2")
    data_start = _aligned(cursor.place, alignment)
    return GgufFile(fields, _placed(infos, data_start, cursor, alignment, size_of))


def _name(cursor: _Cursor, what: str, taken: dict[str, Any]) -> str:
    name = cursor.string(f"the name of {what}")
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise _Broken(f"the name of {what} is {name[:60]!r}")
    if name in taken:
        raise _Broken(f"{name} occurs twice")
    return name


def _value(cursor: _Cursor, type_id: int, name: str) -> Any:
    if type_id in _NUMBERS:
        return cursor.number(_NUMBERS[type_id], name)
    if type_id == _BOOL:
        value = cursor.number("B", name)
        if value > 1:
            raise _Broken(f"{name} is {value}; expected a boolean, 0 or 1")
        return bool(value)
    if type_id == _STRING:
        return cursor.string(name)
    if type_id != _ARRAY:
        raise _Broken(f"{name} is of the unknown type {type_id}")
    return _array(cursor, name)


def _array(cursor: _Cursor, name: str) -> list[Any]:
    type_id = cursor.number("I", name)
    what = f"the length of {name}"
    if type_id == _STRING:
        return [cursor.string(name) for _ in range(cursor.count(8, what))]
    if type_id == _BOOL:
        return [_value(cursor, _BOOL, name) for _ in range(cursor.count(1, what))]
    if type_id not in _NUMBERS:
        raise _Broken(f"{name} is a list of the unknown type {type_id}")
    dtype = np.dtype("<" + _NUMBERS[type_id])
    n = cursor.count(dtype.itemsize, what)
    return np.frombuffer(cursor.take(n * dtype.itemsize, name), dtype).tolist()


class _TensorInfo(NamedTuple):
    """What a file says of a tensor; the offset counts from the beginning of the data."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


def _tensor_info(cursor: _Cursor) -> _TensorInfo:
    name = _name(cursor, "a tensor", {})
    n_dimensions = cursor.number("I", name)
    if n_dimensions > _MOST_DIMENSIONS:
        raise _Broken(f"tensor {name} has {n_dimensions:,} axes; expected at most 4")
    shape = tuple(cursor.number("Q", name) for _ in range(n_dimensions))[::-1]
    if math.prod(max(n, 1) for n in shape) > _MOST_ELEMENTS:
        raise _Broken(f"tensor {name} has the shape {shape}")
    return _TensorInfo(name, shape, cursor.number("I", name), cursor.number("Q", name))


def _placed(
    infos: list[_TensorInfo], data_start: int, cursor: _Cursor, alignment: int, size_of: SizeOf
) -> dict[str, GgufTensor]:
    """Return the tensors by name, whose data must follow each other without gap or overlap."""
    file_size = cursor.place + cursor.n_left
    tensors: dict[str, GgufTensor] = {}
    expected = 0
    for name, shape, type_id, offset in infos:
        if name in tensors:
            raise _Broken(f"tensor {name} occurs twice")
        if offset != expected:
            raise _Broken(f"the data of {name} begin at {offset:,}; expected {expected:,}")
        n_bytes = size_of(name, type_id, shape)
        if data_start + offset + n_bytes > file_size:
            raise _Broken(f"it ends before {name} does; was it copied wholly?")
        expected = offset + _aligned(n_bytes, alignment)
        tensors[name] = GgufTensor(shape, type_id, data_start + offset)
    return tensors


def _aligned(n_bytes: int, alignment: int) -> int:
    """Round up to a multiple of the alignment."""
    return -(-n_bytes // alignment) * alignment
