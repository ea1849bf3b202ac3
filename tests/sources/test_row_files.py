"""Rows of one file: every form gives the same rows, and broken files are named."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ift_jax.errors import UserError
from ift_jax.sources.row_files import count_rows, read_rows, read_rows_where
from tests.sources.dataset_files import write

ROWS = [{"a": "é", "n": i, "m": [{"role": "user", "content": "x"}]} for i in range(150)]


def _read(path):
    return [row.fields() for row in read_rows(str(path))]


@pytest.mark.parametrize("name", ["r.parquet", "r.jsonl", "r.jsonl.gz", "r.json", "r.arrow"])
def test_every_form_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".arrow"):
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table, max_chunksize=64)
    else:
        write(path, ROWS)
    assert _read(path) == ROWS
    places = [row.place for row in read_rows(str(path))]
    last = f"{path}:150" if ".jsonl" in name else f"{path}: row 149"
    assert len(set(places)) == 150 and places[-1] == last


@pytest.mark.parametrize("name", ["r.parquet", "r.jsonl", "r.jsonl.gz", "r.json"])
def test_rows_are_counted_and_taken_by_place_or_value(tmp_path, name):
    write(tmp_path / name, ROWS)
    path = str(tmp_path / name)
    assert count_rows(path) == 150
    assert [row.fields() for row in read_rows(path, 3, 7)] == ROWS[3:7]
    assert [row.fields() for row in read_rows(path, 140)] == ROWS[140:]
    found = list(read_rows_where(path, "n", lambda n: n % 50 == 0))
    assert [row.fields() for row in found] == ROWS[::50]
    assert [row.value("n") for row in found] == [0, 50, 100]
    everything = list(read_rows(path))
    assert [row.place for row in found] == [everything[i].place for i in (0, 50, 100)]


def test_columns_of_one_name_are_refused(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table)
    for path in tmp_path.iterdir():
        with pytest.raises(UserError, match=f"{path}: column 'text' occurs twice"):
            list(read_rows(str(path)))


def test_broken_files_are_named(tmp_path):
    for name, data, said in (
        ("a.parquet", b"PAR1", ": cannot be read"),
        ("b.jsonl.gz", b"no gzip", ":1: broken gzip file"),
        ("c.json", b"[{", ": column 3: "),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=name + said):
            list(read_rows(str(tmp_path / name)))
    (tmp_path / "d.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(UserError, match="d.jsonl:2: column 5"):
        _read(tmp_path / "d.jsonl")
