"""Rows of a published data set: a local copy if there is one, else the package that provides it."""

import abc
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.sources.row_files import count_rows, read_rows

_COPY_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


class PlacedRow(NamedTuple):
    """A row of plain Python values, and what an error calls it."""

    place: str
    fields: dict[str, Any]


def local_copy(root: str, dataset: str, split: str) -> str:
    """Return the absolute path of `<root>/<dataset>/<split>.jsonl`, `.jsonl.gz` or `.parquet`.

    Returns:
        "" where there is none of the three, or no root.
    """
    if not root:
        return ""
    stem = os.path.join(root, *dataset.split("/"), split)
    for ending in _COPY_ENDINGS:
        if os.path.isfile(stem + ending):
            return os.path.abspath(stem + ending)
    return ""


class DatasetRows(abc.ABC):
    """The rows of a data set, split by split.

    A subclass says how the rows are fetched where there is no local copy: `HubRows` with the
    package `datasets`, `TfdsRows` with TensorFlow Datasets.

    Args:
        root: The folder of local copies, `data.root`; "" for none.
        name: The name by which the package knows the data set; a version may follow a ":".
    """

    def __init__(self, root: str, name: str) -> None:
        self.root = root
        self.name = name

    @property
    def dataset(self) -> str:
        """The name without a version, which is also the folder of local copies."""
        return self.name.partition(":")[0]

    def path(self, split: str) -> str:
        """Return the path of the split's local copy, "" where there is none."""
        return local_copy(self.root, self.dataset, split)

    def files(self, split: str) -> list[str]:
        """Return the local files that hold the split, as `PythonDataSource.files` does."""
        path = self.path(split)
        return [os.path.abspath(path)] if path else []

    def read(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[PlacedRow]:
        """Yield the rows `start` to `stop` of a split.

        Raises:
            UserError: The data is not on this machine, or a row cannot be read.
        """
        path = self.path(split)
        return self.read_file(path, start, stop) if path else self.fetch(split, start, stop)

    def count(self, split: str) -> int:
        """Return the number of rows of a split."""
        path = self.path(split)
        return self.count_file(path) if path else self.fetch_count(split)

    def version(self, split: str) -> str:
        """Return what besides local files determines the rows; "" where that is nothing."""
        return "" if self.path(split) else self.fetch_version(split)

    def read_file(self, path: str, start: int, stop: int | None) -> Iterator[PlacedRow]:
        """Yield rows of a local copy."""
        for row in read_rows(path, start, stop):
            yield PlacedRow(row.place, dict(row.fields()))

    def count_file(self, path: str) -> int:
        """Return the number of rows of a local copy."""
        return count_rows(path)

    def missing(self, split: str, how_to_get: str) -> UserError:
        """Return the error that says where a local copy of the split would be looked for."""
        folder = f"{self.root or '<data.root>'}/{self.dataset}"
        return UserError(
            f"{self.name}: the split {split!r} is not on this machine; put {split}.jsonl "
            f"(.jsonl.gz, .parquet) into {folder}, or {how_to_get}"
        )

    @abc.abstractmethod
    def fetch(self, split: str, start: int, stop: int | None) -> Iterator[PlacedRow]:
        """Yield rows that the package provides."""

    @abc.abstractmethod
    def fetch_count(self, split: str) -> int:
        """Return how many rows the package has."""

    @abc.abstractmethod
    def fetch_version(self, split: str) -> str:
        """Return the version of the data that the package has."""
