"""Parquet files: one row an example, columns of strings (or lists of structs for chat)."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource, expand_paths

_BATCH_ROWS = 1024
_Row = tuple[str, int, pa.RecordBatch, int]  # Path, row, and its batch and place there.


class ParquetDataSource(PythonDataSource):
    """Reads the named columns of Parquet files.

    `files`: split -> path, glob pattern, or several; `columns`: our field -> the column. Strings
    are taken as they are, any other kind (`messages`, a list of structs) as JSON.
    """

    def __init__(self, files: Mapping[str, str | Sequence[str]], columns: Mapping[str, str]):
        super().__init__(files)
        self._files = {split: expand_paths(paths) for split, paths in files.items()}
        self._columns = dict(columns)
        for path in itertools.chain.from_iterable(self._files.values()):
            names = _open(path).schema_arrow.names
            for column in sorted(set(columns.values()) - set(names)):
                has = ", ".join(names)
                raise UserError(f"{path}: column {column!r} is missing; the file has: {has}")

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self._columns)

    def files(self, split: str) -> list[str]:
        self.check_split(split)
        return list(self._files[split])

    def options(self, split: str) -> Any:
        return self._columns

    def num_input_examples(self, split: str) -> int:
        return sum(_open(path).metadata.num_rows for path in self.files(split))

    def items(self, split: str) -> Iterator[_Row]:
        wanted = list(dict.fromkeys(self._columns.values()))
        for path in self.files(split):
            rows = itertools.count()
            for batch in _open(path).iter_batches(_BATCH_ROWS, columns=wanted):
                for i in range(batch.num_rows):
                    yield path, next(rows), batch, i

    def render(self, item: _Row, split: str, index: int, seed: int) -> dict[str, str]:
        path, row, batch, i = item
        record = {}
        for field, column in self._columns.items():
            value = batch.column(column)[i].as_py()
            if value is None:
                raise UserError(f"{path}: row {row}: column {column!r} is null; expected a value")
            if not isinstance(value, str):
                value = json.dumps(value, ensure_ascii=False, default=str)
            record[field] = value
        return record


def _open(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not a readable Parquet file ({reason})") from None
