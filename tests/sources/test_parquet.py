"""Parquet files against what pyarrow wrote."""

import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import seqio

from ift_jax.errors import UserError
from ift_jax.sources.row_files import read_rows
from ift_jax.sources.row_files_source import RowFilesSource

COLUMNS = {"inputs": "q", "targets": "a"}


def _write(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=700)
    return str(path)


def test_rows_in_order_over_files_batches_and_shards(tmp_path):
    a = _write(tmp_path / "a.parquet", q=[str(i) for i in range(2500)], a=["é"] * 2500)
    b = _write(tmp_path / "b.parquet", q=["x"], a=["y"], extra=[1])
    source = RowFilesSource({"train": [a, b]}, COLUMNS)
    expected = [{"inputs": str(i), "targets": "é"} for i in range(2500)]
    expected.append({"inputs": "x", "targets": "y"})
    assert list(source.records("train")) == expected
    assert source.num_input_examples("train") == 2501
    dataset = source.get_dataset("train", shard_info=seqio.ShardInfo(1, 2))
    inputs = [example["inputs"].decode() for example in dataset.as_numpy_iterator()]
    assert inputs == [record["inputs"] for record in expected[1::2]]


def test_structs_become_messages(tmp_path):
    messages = [{"role": "user", "content": "ü"}, {"role": "assistant", "content": "b"}]
    path = _write(tmp_path / "c.parquet", conversation=[messages])
    source = RowFilesSource({"train": path}, {"messages": "conversation"})
    [record] = source.records("train")
    assert json.loads(record["messages"]) == messages


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([b"Hi", "ü".encode()]), ["Hi", "ü"]),
        (pa.array([b"Hi", b"x"], pa.large_binary()), ["Hi", "x"]),
        (pa.array([decimal.Decimal("1.50"), decimal.Decimal("-2.00")]), ["1.50", "-2.00"]),
        (pa.array([datetime.date(2024, 2, 29)] * 2), ["2024-02-29"] * 2),
        (pa.array([datetime.datetime(2024, 2, 29, 1, 2)] * 2), ["2024-02-29T01:02:00"] * 2),
        (pa.array([datetime.time(1, 2, 3)] * 2), ["01:02:03"] * 2),
        (pa.array([datetime.timedelta(hours=2)] * 2), ["2:00:00"] * 2),
        (pa.array([3, -4]), ["3", "-4"]),
        (pa.array([0.5, 1e300]), ["0.5", "1e+300"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_columns_of_other_types_become_their_text(tmp_path, values, texts):
    path = _write(tmp_path / "a.parquet", q=["x", "y"], a=values)
    source = RowFilesSource({"train": path}, COLUMNS)
    assert [record["targets"] for record in source.records("train")] == texts


def test_null_in_an_optional_column_is_absence_and_unread_bytes_are_no_mistake(
    tmp_path,
):
    path = _write(
        tmp_path / "a.parquet",
        inputs=["x", "y"],
        targets=["1", "2"],
        system=[None, "s"],
        references=pa.array([None, ["z"]], pa.list_(pa.string())),
        weight=[None, 0.5],
        image=[b"\xff\xd8", None],
    )
    first, second = RowFilesSource({"train": path}).parsed("train", "t")
    assert [m.content for m in first.messages] == ["x", "1"] and first.unread == ("image",)
    assert [m.content for m in second.messages] == ["s", "y", "2"]
    assert second.references == ("z",) and second.weight == 0.5


def test_nulls_that_arrow_filled_in_are_gone(tmp_path):
    tools = [[{"name": "f", "parameters": {"x": 1}}], [{"name": "g", "parameters": {"y": 1}}]]
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = _write(tmp_path / "a.parquet", messages=[messages] * 2, tools=tools)
    names = [
        record.tools[0]["function"]["parameters"]
        for record in RowFilesSource({"train": path}).parsed("train", "t")
    ]
    assert names == [{"x": 1}, {"y": 1}]


def test_errors_name_file_column_and_row(tmp_path):
    path = _write(tmp_path / "a.parquet", q=["x", None], a=["y", "z"])
    with pytest.raises(UserError, match="a.parquet: row 0: field 'b' is missing; found 'q', 'a'"):
        list(RowFilesSource({"train": path}, {"inputs": "q", "targets": "b"}).records("train"))
    with pytest.raises(UserError, match="a.parquet: row 1: field 'q': expected a text, found null"):
        list(RowFilesSource({"train": path}, COLUMNS).records("train"))
    pq.write_table(pa.table({"inputs": [b"\xff"], "targets": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="b.parquet: row 0: field 'inputs': expected valid UTF-8"):
        list(RowFilesSource({"train": str(tmp_path / "b.parquet")}).records("train"))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="broken.parquet: cannot be read"):
        list(RowFilesSource({"train": str(broken)}, COLUMNS).records("train"))


@pytest.mark.parametrize("is_parquet", [True, False])
def test_columns_of_json_are_what_they_say(tmp_path, is_parquet):
    call = {"function": {"name": "f", "arguments": {"a": [1, None], "b": "é"}}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    column = pa.array([[json.dumps(turn) for turn in messages]], pa.list_(pa.string()))
    table = pa.table({"messages": column.cast(pa.list_(pa.json_()))})
    path = tmp_path / ("rows.parquet" if is_parquet else "rows.arrow")
    if is_parquet:
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    [row] = read_rows(str(path))
    assert row.fields() == {"messages": messages}
    assert row.value("messages") == messages
    assert RowFilesSource({"train": str(path)}).is_chat


def test_a_damaged_column_of_json_names_file_row_and_field(tmp_path):
    table = pa.table({"tools": pa.array(['{"a": 1'], pa.string()).cast(pa.json_())})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:
        stream.write_table(table)
    [row] = read_rows(str(tmp_path / "a.arrow"))
    with pytest.raises(UserError, match=r"a\.arrow: row 0: field 'tools': column 8: "):
        row.fields()
