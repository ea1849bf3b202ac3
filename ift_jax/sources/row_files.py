"""Rows of one file: JSON lines, a JSON array, Parquet, or Arrow.

Every source of published data sets reads its rows here. A row is decoded only when its fields are
asked for, because the shards and the tasks of a mixture that share a file skip most of its rows.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind, parse_json, read_json_file
from ift_jax.sources.json_lines import JsonLine, read_lines

_ARROW_FILE = b"ARROW1"  # How a file in Arrow's file format begins.
_BATCH_ROWS = 1024
# What pyarrow raises for a damaged file: an OSError for its bytes, a ValueError or OverflowError
# where a value of a column is none of its type, such as text that is not UTF-8.
_DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)


class StoredRow(NamedTuple):
    """A row that is decoded on demand.

    Attributes:
        place: What an error calls the row: "path:line" or "path: row index".
        content: The line, the batch that holds the row, or its fields.
        position: Where in the batch the row is.
        json_columns: The columns of the batch that hold texts of JSON, with their types.
    """

    place: str
    content: JsonLine | pa.RecordBatch | Mapping[str, Any]
    position: int = 0
    json_columns: Mapping[str, pa.DataType] = MappingProxyType({})

    def fields(self) -> Mapping[str, Any]:
        """Decode the row.

        Raises:
            UserError: The row is a line that is not one JSON object, a value of it is none of its
                column's type, or a text in a column of JSON is none.
        """
        content = self.content
        if isinstance(content, JsonLine):
            return content.parse()
        if isinstance(content, pa.RecordBatch):
            try:
                row: dict[str, Any] = content.slice(self.position, 1).to_pylist()[0]
            except _DAMAGE as error:
                raise _unreadable(self.place, error) from None
            for name, kind in self.json_columns.items():
                row[name] = _parsed(row[name], kind, f"{self.place}: field {name!r}")
            return row
        return content

    def value(self, name: str) -> Any:
        """Return one field, None where the row lacks it, without decoding more than needed."""
        if isinstance(self.content, pa.RecordBatch):
            try:
                value = self.content.column(name)[self.position].as_py()
            except _DAMAGE as error:
                raise _unreadable(self.place, error) from None
            kind = self.json_columns.get(name)
            return _parsed(value, kind, f"{self.place}: field {name!r}") if kind else value
        return self.fields().get(name)


def read_rows(path: str, start: int = 0, stop: int | None = None) -> Iterator[StoredRow]:
    """Yield the rows `start` to `stop` of a file.

    Raises:
        UserError: The file cannot be read as what its name says.
    """
    try:
        yield from itertools.islice(_rows(path), start, stop)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None


def _rows(path: str) -> Iterator[StoredRow]:
    if path.endswith(".parquet"):
        yield from _rows_of_batches(path, pq.ParquetFile(path).iter_batches(_BATCH_ROWS))
    elif path.endswith(".arrow"):
        yield from _rows_of_batches(path, _arrow_batches(path))
    elif path.endswith(".json") and _is_array(path):
        rows = read_json_file(path, expected="an array of objects", strict=True)
        if not isinstance(rows, list):
            raise UserError(f"{path}: expected an array of objects, found {json_kind(rows)}")
        for index, row in enumerate(rows):
            yield StoredRow(f"{path}: row {index}", row)
    else:
        for line in read_lines(path):
            yield StoredRow(line.place, line)


def _is_array(path: str) -> bool:
    """Whether a file of JSON holds one array; many of that ending hold an object per line."""
    with open(path, "rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _arrow_batches(path: str) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a stream, as the package `datasets` writes it, or of a file."""
    source = pa.memory_map(path)
    if source.read(len(_ARROW_FILE)) != _ARROW_FILE:
        source.seek(0)
        yield from pa.ipc.open_stream(source)
        return
    reader = pa.ipc.open_file(source)
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


def _rows_of_batches(path: str, batches: Iterator[pa.RecordBatch]) -> Iterator[StoredRow]:
    first = 0
    for batch in batches:
        names = batch.schema.names
        if len(set(names)) < len(names):  # A row would hold the last of them, and lose the others.
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{path}: column {twice!r} occurs twice")
        json_columns = _json_columns(batch.schema)
        for index in range(batch.num_rows):
            yield StoredRow(f"{path}: row {first + index}", batch, index, json_columns)
        first += batch.num_rows


def _json_columns(schema: pa.Schema) -> dict[str, pa.DataType]:
    """Return the columns that hold JSON: `datasets` writes values of mixed types as its text."""
    return {field.name: field.type for field in schema if _holds_json(field.type)}


def _holds_json(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.JsonType):
        return True
    # A list has one field, a struct several, and a map has two; a plain type has none.
    return any(_holds_json(kind.field(index).type) for index in range(kind.num_fields))


def _parsed(value: Any, kind: pa.DataType, place: str) -> Any:
    """Return a value of a type with the texts of JSON in it parsed."""
    if value is None or not _holds_json(kind):
        return value
    if isinstance(kind, pa.JsonType):
        return parse_json(value, place)
    if isinstance(value, dict):
        return {name: _parsed(part, kind.field(name).type, place) for name, part in value.items()}
    if pa.types.is_map(kind):
        return [(key, _parsed(part, kind.item_type, place)) for key, part in value]
    return [_parsed(part, kind.value_type, place) for part in value]


def read_rows_where(path: str, column: str, wanted: Callable[[Any], bool]) -> Iterator[StoredRow]:
    """Yield the rows whose value in a column is wanted.

    The tasks of a mixture read the same files, so a pass must cost its own rows and not all: row
    groups of a Parquet file without such a row are not decoded.

    Raises:
        UserError: The file cannot be read, or a Parquet file lacks the column.
    """
    if not path.endswith(".parquet"):
        yield from (row for row in read_rows(path) if wanted(row.value(column)))
        return
    try:
        file = pq.ParquetFile(path)
        first = 0
        for group in range(file.num_row_groups):
            values = file.read_row_group(group, [column])[column].to_pylist()
            hits = [index for index, value in enumerate(values) if wanted(value)]
            if hits:
                [batch] = file.read_row_group(group).combine_chunks().to_batches()
                json_columns = _json_columns(batch.schema)
                for index in hits:
                    yield StoredRow(f"{path}: row {first + index}", batch, index, json_columns)
            first += len(values)
    except (KeyError, *_DAMAGE) as error:
        raise _unreadable(path, error) from None


def count_rows(path: str) -> int:
    """Return the number of rows of a file, which are not decoded.

    Raises:
        UserError: As `read_rows`.
    """
    if path.endswith(".parquet"):
        try:
            return int(pq.ParquetFile(path).metadata.num_rows)
        except _DAMAGE as error:
            raise _unreadable(path, error) from None
    return sum(1 for _ in read_rows(path))


def _unreadable(place: str, error: Exception) -> UserError:
    # An OSError's own text repeats the path.
    text = getattr(error, "strerror", None) or str(error)
    reason = " ".join(text.split())[:300] or type(error).__name__
    return UserError(f"{place}: cannot be read ({reason})")
