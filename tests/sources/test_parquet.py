"""Parquet files against what pyarrow wrote."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import seqio

from ift_jax.errors import UserError
from ift_jax.sources.parquet import ParquetDataSource

COLUMNS = {"inputs": "q", "targets": "a"}


def _write(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=700)
    return str(path)


def test_rows_in_order_over_files_batches_and_shards(tmp_path):
    a = _write(tmp_path / "a.parquet", q=[str(i) for i in range(2500)], a=["é"] * 2500)
    b = _write(tmp_path / "b.parquet", q=["x"], a=["y"], extra=[1])
    source = ParquetDataSource({"train": [a, b]}, COLUMNS)
    expected = [{"inputs": str(i), "targets": "é"} for i in range(2500)]
    expected.append({"inputs": "x", "targets": "y"})
    assert list(source.records("train")) == expected
    assert source.num_input_examples("train") == 2501
    dataset = source.get_dataset("train", shard_info=seqio.ShardInfo(1, 2))
    inputs = [example["inputs"].decode() for example in dataset.as_numpy_iterator()]
    assert inputs == [record["inputs"] for record in expected[1::2]]


def test_structs_become_json(tmp_path):
    messages = [{"role": "user", "content": "ü"}, {"role": "assistant", "content": "b"}]
    path = _write(tmp_path / "c.parquet", conversation=[messages])
    source = ParquetDataSource({"train": path}, {"messages": "conversation"})
    [record] = source.records("train")
    assert json.loads(record["messages"]) == messages


def test_errors_name_file_column_and_row(tmp_path):
    path = _write(tmp_path / "a.parquet", q=["x", None], a=["y", "z"])
    with pytest.raises(UserError, match="a.parquet: column 'b' is missing; the file has: q, a"):
        ParquetDataSource({"train": path}, {"inputs": "q", "targets": "b"})
    with pytest.raises(UserError, match="a.parquet: row 1: column 'q' is null"):
        list(ParquetDataSource({"train": path}, COLUMNS).records("train"))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="broken.parquet: not a readable Parquet file"):
        ParquetDataSource({"train": str(broken)}, COLUMNS)
