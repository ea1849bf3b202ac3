"""The header of a safetensors file, held to the rules of the reference implementation.

A file is the length of its header (8 bytes, little-endian), the header (a JSON object: the dtype,
shape and byte range of each tensor), and the data. The ranges follow each other without gap or
overlap and cover the data exactly, so no file holds bytes that nobody sees, and no two tensors
share memory. What the `safetensors` package refuses is refused here; it also takes a name that
occurs twice, of which it reads the last.
"""

import json
import math
import os
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_object, parse_json
from ift_jax.io.typed_fields import NULL, OBJECT, TEXT, Kind, TypedFields, list_of, object_of, whole

LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000  # Bytes; the limit of the reference implementation.
_MOST_ELEMENTS = 1 << 60

# The bits of an element of each dtype that the reference implementation knows.
_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


_DTYPE = Kind(f"one of {', '.join(_BITS)}", lambda value: isinstance(value, str) and value in _BITS)
_OFFSET = whole(0, 2**63 - 1)
_RANGE = Kind(
    "two whole numbers: where the data begin and end",
    lambda value: list_of(_OFFSET).accepts(value) and len(value) == 2,
)


class HeaderEntry(NamedTuple):
    """A tensor of a file.

    Attributes:
        dtype: The dtype, as safetensors spells it.
        shape: The shape.
        offset: Where its data begin in the file, in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int


def read_header(path: str) -> dict[str, HeaderEntry]:
    """Return the tensors of a file by name.

    Raises:
        UserError: The file cannot be read, or breaks one of the rules above.
    """
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, _LONGEST_HEADER):
                raise _broken(path, "its header is longer than the file")
            content = file.read(length)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not content.lstrip(b" \t\r\n").startswith(b"{"):
        raise _broken(path, "its header is no JSON object")
    where = f"{path}: its header"
    parsed = json_object(parse_json(content, where, strict=True), where)
    try:
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _broken(path, "its header holds half of a surrogate pair") from error
    header = TypedFields(parsed, where)
    header.get("__metadata__", object_of(TEXT) | NULL, None)
    names = [name for name in header.raw if name != "__metadata__"]
    data_start = LENGTH_BYTES + length
    ranges: list[tuple[int, int, str]] = []
    entries = {}
    for name in names:
        header.check("the name of a tensor", name, TEXT)
        entry = TypedFields(header.get(name, OBJECT), f"{path}: tensor {name}")
        begin, end = entry.get("data_offsets", _RANGE)
        ranges.append((begin, end, name))
        entries[name] = _entry(entry, begin, end, data_start)
    _check_ranges(path, ranges, size - data_start)
    return entries


def _entry(fields: TypedFields, begin: int, end: int, data_start: int) -> HeaderEntry:
    """Check the dtype and shape of a tensor against the length of its range."""
    dtype = fields.get("dtype", _DTYPE)
    shape = tuple(fields.get("shape", list_of(_OFFSET)))
    if math.prod(max(n, 1) for n in shape) > _MOST_ELEMENTS:
        raise fields.refusal("shape", list(shape), f"at most {_MOST_ELEMENTS:,} elements")
    bits = math.prod(shape) * _BITS[dtype]
    if (end - begin) * 8 != bits:
        raise fields.refusal(
            "data_offsets", [begin, end], f"{bits / 8:g} bytes for a shape of {list(shape)} {dtype}"
        )
    return HeaderEntry(dtype, shape, data_start + begin)


def _check_ranges(path: str, ranges: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Refuse ranges with a gap, an overlap, or an end that is not that of the data."""
    position = 0
    for begin, end, name in sorted(ranges):
        if begin != position:
            kind = "overlap those of another tensor" if begin < position else "leave a gap"
            raise _broken(path, f"the data of {name} begin at byte {begin} and {kind}")
        position = end
    if position > data_bytes:
        last = max(ranges)[2]
        raise _broken(path, f"it ends before {last} does; was it copied wholly?")
    if position < data_bytes:
        raise _broken(path, f"{data_bytes - position:,} bytes at its end belong to no tensor")


def _broken(path: str, why: str) -> UserError:
    return UserError(f"{path}: not a whole safetensors file: {why}")
