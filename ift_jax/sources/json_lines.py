"""Lines of JSON lines files, plain or gzip, and the object that each one holds."""

import gzip
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind, parse_json


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
            UserError: The line is not one JSON object in UTF-8, or holds what strict JSON does not.
        """
        content = self.content.strip(b"\r\n")
        expected = "one JSON object on the line"
        value = parse_json(content, self.place, expected=expected, strict=True)
        if not isinstance(value, dict):
            found = json_kind(value)
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
