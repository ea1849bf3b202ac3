"""Lines of JSON lines files, plain or gzip, and the object that each one holds."""

import collections
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ift_jax.errors import UserError


class JsonLine(NamedTuple):
    """A line that is not parsed yet.

    Attributes:
        path: The file.
        number: The number of the line, from 1.
        content: Its bytes, with the line break.
    """

    path: str
    number: int
    content: bytes

    @property
    def place(self) -> str:
        """What an error calls the line."""
        return f"{self.path}:{self.number}"

    def parse(self) -> dict[str, Any]:
        """Return the object on the line.

        Raises:
            UserError: The line is not one JSON object in UTF-8, or a key occurs twice in it.
        """
        encoding = "utf-8-sig" if self.number == 1 else "utf-8"
        try:
            text = self.content.rstrip(b"\r\n").decode(encoding)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.place}: byte {error.start + 1} is not valid UTF-8") from None
        try:
            # `json.loads` has an error of its own for a byte order mark that is left.
            value = json.loads(text) if text.startswith("\ufeff") else _DECODER.decode(text)
        except _DuplicateKey as error:
            key = str(error)
            raise UserError(f"{self.place}: key {key!r} occurs twice in one object") from None
        except json.JSONDecodeError as error:
            why = f"column {error.colno}: {error.msg}"
            raise UserError(f"{self.place}: {why}; expected one JSON object on the line") from None
        except RecursionError:
            raise UserError(f"{self.place}: nested too deeply to be a record") from None
        if not isinstance(value, dict):
            found = kind_of(value)
            raise UserError(f"{self.place}: the line is {found}; expected a JSON object")
        return value


def read_lines(path: str) -> Iterator[JsonLine]:
    """Yield the lines of a file that are not blank; `.gz` is decompressed.

    Raises:
        UserError: The gzip file is broken; names the line.
    """
    number = 0
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 (the error names it)
                if line.strip():
                    yield JsonLine(path, number, line)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}:{number + 1}: broken gzip file ({error})") from None


class _DuplicateKey(Exception):
    """A key that an object has more than once."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        raise _DuplicateKey(counts.most_common(1)[0][0])
    return result


# Made once: `json.loads` with a hook would make a decoder a line.
_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates)


def kind_of(value: Any) -> str:
    """Return what a JSON value is, for an error message: "null", "a list", "an object", ..."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return names.get(type(value), "a number")
