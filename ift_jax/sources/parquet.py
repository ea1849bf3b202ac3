"""A source that reads columns of Parquet files: strings, or lists of structs for chat."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource, expand_paths

_BATCH_ROWS = 1024


class _Row(NamedTuple):
    path: str
    number: int  # In the file.
    batch: pa.RecordBatch
    position: int  # In the batch.


class ParquetDataSource(PythonDataSource):
    """Records made of the named columns of Parquet files.

    Args:
        files: Split -> path, glob pattern, or several of them.
        columns: Our field -> the column. Strings are taken as they are; any other kind, such as
            `messages`, a list of structs, as JSON.

    Raises:
        UserError: A file is missing, is not Parquet, or lacks a column.
    """

    def __init__(
        self, files: Mapping[str, str | Sequence[str]], columns: Mapping[str, str]
    ) -> None:
        super().__init__(files)
        self._files = {split: expand_paths(paths) for split, paths in files.items()}
        self._columns = dict(columns)
        for paths in self._files.values():
            for path in paths:
                self._check_columns(path)

    def _check_columns(self, path: str) -> None:
        names = _open(path).schema_arrow.names
        missing = sorted(set(self._columns.values()) - set(names))
        if missing:
            has = ", ".join(names)
            raise UserError(f"{path}: column {missing[0]!r} is missing; the file has: {has}")

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
        columns = list(dict.fromkeys(self._columns.values()))
        for path in self.files(split):
            first = 0
            for batch in _open(path).iter_batches(_BATCH_ROWS, columns=columns):
                for index in range(batch.num_rows):
                    yield _Row(path, first + index, batch, index)
                first += batch.num_rows

    def render(self, item: _Row, split: str, index: int, seed: int) -> dict[str, str]:
        record = {}
        for field, column in self._columns.items():
            value = item.batch.column(column)[item.position].as_py()
            if value is None:
                where = f"{item.path}: row {item.number}"
                raise UserError(f"{where}: column {column!r} is null; expected a value")
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
