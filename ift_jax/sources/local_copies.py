"""Local copies of a data set: `<root>/<name>/<split>.jsonl`, `.jsonl.gz` or `.parquet`."""

import gzip
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from ift_jax.sources.hugging_face import read_rows, row_of

_ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def local_file(root: str, name: str, split: str) -> str:
    """The absolute path of a split's local copy; "" if there is none, or no root."""
    stem = os.path.join(root, *name.split("/"), split)
    paths = (stem + ending for ending in _ENDINGS)
    return next((os.path.abspath(path) for path in paths if root and os.path.isfile(path)), "")


def count_rows(path: str) -> int:
    """The number of rows of a local copy."""
    if path.endswith(".parquet"):
        return int(pq.ParquetFile(path).metadata.num_rows)
    with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
        return sum(1 for line in file if line.strip())


def local_rows(
    path: str, start: int = 0, stop: int | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields place and content of rows; a UserError names a line that is no JSON object."""
    held_rows = itertools.islice(read_rows(path), start, stop)  # Before any is parsed.
    return ((place, dict(row_of(held, i))) for place, held, i in held_rows)
