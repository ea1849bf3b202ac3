"""Parquet files as a data source reads them; `pyarrow` judges."""

import datetime
import decimal
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.robustness.byte_mutations import spoiled_bytes
from tests.robustness.group import Case, Group

_DAY = datetime.date(2024, 2, 29)
_COLUMNS: dict[str, tuple[list[Any], Any]] = {
    "text": (["a", "\u00e9", ""], pa.string()),
    "large text": (["a", "b", "c"], pa.large_string()),
    "null in text": (["a", None, "c"], pa.string()),
    "dictionary": (["a", "b", "a"], pa.dictionary(pa.int32(), pa.string())),
    "binary": ([b"a", b"\xff\xfe", b"c"], pa.binary()),
    "utf-8 in binary": ([b"a", "\u00e9".encode(), b"c"], pa.binary()),
    "integers": ([1, 2, 2**60], pa.int64()),
    "floats": ([1.5, float("nan"), float("inf")], pa.float64()),
    "decimals": ([decimal.Decimal("1.50")] * 3, pa.decimal128(5, 2)),
    "dates": ([_DAY] * 3, pa.date32()),
    "times": ([datetime.datetime(2024, 1, 1)] * 3, pa.timestamp("us")),
    "booleans": ([True, False, True], pa.bool_()),
    "nulls": ([None] * 3, pa.null()),
    "lists": ([["a"], [], ["b", "c"]], pa.list_(pa.string())),
    "structs": ([{"x": 1}, {"x": 2}, {"x": None}], pa.struct([("x", pa.int64())])),
    "binary in lists": ([[b"\xff"], [b"b"], []], pa.list_(pa.binary())),
    "dates in structs": ([{"x": _DAY}] * 3, pa.struct([("x", pa.date32())])),
}


class Parquet(Group):
    """Two columns of any type are read as `inputs` and `targets`, from a sound or spoiled file."""

    def make(self, rng: random.Random, folder: Path) -> Case:
        kinds = [rng.choice(sorted(_COLUMNS)) if rng.random() < 0.5 else "text" for _ in range(2)]
        columns = {}
        for name, kind in zip(("inputs", "targets"), kinds, strict=True):
            values, arrow_type = _COLUMNS[kind]
            columns[name] = pa.array(values, arrow_type)
        path = folder / "data.parquet"
        compression = rng.choice(("snappy", "zstd", "none"))
        pq.write_table(pa.table(columns), path, compression=compression)
        change = ""
        if rng.random() < 0.6:
            content, change = spoiled_bytes(path.read_bytes(), rng)
            path.write_bytes(content)
        return Case(f"{kinds[0]}, {kinds[1]}: {change}", path)

    def read(self, case: Case) -> Any:
        from ift_jax.sources.row_files_source import RowFilesSource

        columns = {"inputs": "inputs", "targets": "targets"}
        source = RowFilesSource({"train": str(case.path)}, columns)
        source.num_input_examples("train")
        for index, item in enumerate(source.items("train")):
            source.render(item, "train", index, 0)
        records = source.parsed("train", "task")
        return [[message.content for message in record.messages] for record in records]

    def complaint(self, case: Case, value: Any) -> str:
        try:
            theirs = pq.read_table(case.path).to_pylist()
        except (pa.ArrowException, OSError) as error:
            return f"pyarrow refuses it: {error}"
        if len(theirs) != len(value):
            return f"{len(theirs)} rows gave {len(value)} records"
        for row, record in zip(theirs, value, strict=True):
            for name, text in zip(("inputs", "targets"), record, strict=True):
                if not _is_fair(row[name], text):
                    return f"{name} {row[name]!r} is read as {text!r}"
        return ""


def _is_fair(value: Any, text: str) -> bool:
    """Whether a text is what a person would write for a value of a column."""
    if isinstance(value, str):
        return text == value
    if isinstance(value, bytes):
        return text == value.decode("utf-8", "replace")
    if value is None:
        return text == ""
    if isinstance(value, list | dict):
        try:
            return json.loads(text) == json.loads(json.dumps(value, default=str))
        except ValueError:
            return False
    return '"' not in text and "'" not in text


GROUP = Parquet()
