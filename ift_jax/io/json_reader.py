"""The one reader of JSON: whatever is wrong with a text becomes a `UserError` of one line.

`json.loads` raises four kinds of errors, and each has been a traceback for a user somewhere:
`JSONDecodeError`, `UnicodeDecodeError`, `RecursionError` for deep nesting, and a bare `ValueError`
for a number of more than 4,300 digits. Nothing else in this package may call it; `ruff` checks
that.
"""

import collections
import json
import math
import os
import sys
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.paths import as_path

_BOM = "\ufeff"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # Byte order marks; UTF-32's begins with the first of them.


def parse_json(
    content: str | bytes, where: str, *, expected: str = "JSON", strict: bool = False
) -> Any:
    """Parse a JSON text.

    Args:
        content: The text, or its bytes in UTF-8; a byte order mark in front is skipped.
        where: Its place, such as "file:line", with which an error begins.
        expected: What an error says was expected.
        strict: Whether to refuse what Python reads although it is no JSON or loses something: a
            key that occurs twice in one object, NaN, and a number that is too large for a float.

    Raises:
        UserError: The content is no JSON in UTF-8, is nested too deeply, or holds a number of too
            many digits.
    """
    text = content if isinstance(content, str) else _decoded(content, where)
    if text.startswith(_BOM):
        text = text[1:]
    decoder = _STRICT if strict else _DECODER
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text.strip() else ""
        reason = f"{line}column {error.colno}: {error.msg}"
        raise UserError(f"{where}: {reason}; expected {expected}") from None
    except _NotStrict as error:
        raise UserError(f"{where}: {error}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply; expected {expected}") from None
    except ValueError:  # The only other one that the decoder raises: int() of too many digits.
        limit = sys.get_int_max_str_digits()
        raise UserError(f"{where}: a number has more than {limit:,} digits") from None


def read_json_file(
    path: str | os.PathLike[str], *, expected: str = "JSON", strict: bool = False
) -> Any:
    """Return the JSON value in a file, which may be in a bucket.

    Raises:
        UserError: The file cannot be read, or as `parse_json`; names the file.
    """
    where = os.fspath(path)
    try:
        content = as_path(where).read_bytes()
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from error
    return parse_json(content, where, expected=expected, strict=strict)


def read_json_object(path: str | os.PathLike[str], *, strict: bool = False) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        UserError: As `read_json_file`, or the file holds another JSON value.
    """
    value = read_json_file(path, expected="a JSON object", strict=strict)
    return json_object(value, os.fspath(path))


def json_object(value: Any, where: str) -> dict[str, Any]:
    """Return a parsed value that must be an object; raise a UserError for any other."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, found {json_kind(value)}")
    return value


def json_kind(value: Any) -> str:
    """Return what a JSON value is, for an error message: "null", "a list", "an object", ..."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")


class _NotStrict(Exception):
    """What `strict` refuses; the message says what it is."""


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content.startswith(_UTF16):
            raise UserError(f"{where}: is UTF-16; expected UTF-8") from None
        raise UserError(f"{where}: byte {error.start + 1} is not valid UTF-8") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        [(key, _)] = collections.Counter(key for key, _ in pairs).most_common(1)
        raise _NotStrict(f"key {key!r} occurs twice in one object")
    return result


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise _NotStrict(f"the number {digits[:40]} is too large for a float")
    return number


def _refuse_constant(name: str) -> Any:
    raise _NotStrict(f"{name} is no JSON number")


# Made once: `json.loads` with a hook would make a decoder for each call.
_DECODER = json.JSONDecoder()
_STRICT = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_float=_finite, parse_constant=_refuse_constant
)
