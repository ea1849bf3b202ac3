"""Finding and reading the files of a benchmark in the folder that `--benchmark-data` names."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind
from ift_jax.sources.row_files import read_rows


class Row:
    """A row of a file, whose fields are checked when they are asked for."""

    def __init__(self, place: str, fields: Mapping[str, Any]):
        """Take a row.

        Args:
            place: What an error calls it, such as "test.jsonl:3".
            fields: Its fields.
        """
        self.place = place
        self.fields = fields

    def text(self, name: str) -> str:
        """Return a text.

        Raises:
            UserError: The field is missing or no text.
        """
        return self._checked(name, str, "a text")

    def texts(self, name: str, least: int = 1) -> list[str]:
        """Return a list of texts, at least so many.

        Raises:
            UserError: The field is missing or something else.
        """
        value = self._checked(name, list, "a list of texts")
        if len(value) < least or not all(isinstance(item, str) for item in value):
            raise UserError(f"{self.place}: field {name!r}: expected at least {least} texts")
        return value

    def part(self, name: str) -> "Row":
        """Return the fields of an object inside the row.

        Raises:
            UserError: The field is missing or no object.
        """
        return Row(f"{self.place}: field {name!r}", self._checked(name, dict, "an object"))

    def number(self, name: str) -> int:
        """Return a whole number, also one that is written as a text.

        Raises:
            UserError: The field is missing or no whole number.
        """
        value = self.fields.get(name)
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        return self._checked(name, int, "a whole number")

    def _checked(self, name: str, kind: type, expected: str) -> Any:
        if name not in self.fields:
            there = ", ".join(map(str, self.fields)) or "none"
            raise UserError(f"{self.place}: no field {name!r}; there: {there}")
        value = self.fields[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            found = json_kind(value)
            raise UserError(f"{self.place}: field {name!r}: expected {expected}, found {found}")
        return value


class DataFiles:
    """The folder of all benchmarks' files."""

    def __init__(self, root: str):
        """Name the folder.

        Args:
            root: The folder.

        Raises:
            UserError: There is no such folder.
        """
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"--benchmark-data {root}: no such folder")

    def find(self, what: str, patterns: Sequence[str], source: str) -> list[Path]:
        """Return the files of the first pattern that has any, sorted.

        Args:
            what: What is looked for, such as "gsm8k: the test problems".
            patterns: Paths below the folder, `*` for anything but a slash; the layouts that are
                published come one after the other.
            source: Where the files are published.

        Raises:
            UserError: There are none.
        """
        found = self.find_any(patterns)
        if not found:
            expected = " or ".join(patterns)
            raise UserError(
                f"--benchmark-data {self.root}: {what}: expected {expected} there; published as "
                f"{source}"
            )
        return found

    def find_any(self, patterns: Sequence[str]) -> list[Path]:
        """Return what `find` returns; an empty list if there are none."""
        for pattern in patterns:
            if found := sorted(path for path in self.root.glob(pattern) if path.is_file()):
                return found
        return []


def rows_of(paths: Sequence[Path], limit: int | None = None) -> Iterator[Row]:
    """Yield the rows of JSON lines, a JSON array, Parquet, or Arrow.

    Args:
        paths: The files, one after the other.
        limit: The most rows; None for all.

    Raises:
        UserError: A file cannot be read.
    """
    n_read = 0
    for path in paths:
        for row in read_rows(str(path), stop=None if limit is None else limit - n_read):
            n_read += 1
            yield Row(row.place, row.fields())


def csv_rows_of(path: Path, n_columns: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each row of a CSV file without a head.

    Raises:
        UserError: A row has another number of cells, or the file is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for number, cells in enumerate(csv.reader(file), start=1):
                place = f"{path}: row {number}"
                if len(cells) != n_columns:
                    raise UserError(f"{place}: expected {n_columns} cells, found {len(cells)}")
                yield place, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason})") from error
