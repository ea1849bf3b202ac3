"""Data sets of the hub: where files are looked for, and what is said if there are none."""

import sys
import types

import pyarrow as pa
import pytest

from ift_jax.errors import UserError
from ift_jax.sources.hugging_face import HubRows, dataset_files
from ift_jax.sources.row_files import read_rows
from tests.sources.dataset_files import write

ROWS = [{"a": "é", "n": i, "m": [{"role": "user", "content": "x"}]} for i in range(150)]


def _read(path):
    return [row.fields() for row in read_rows(str(path))]


@pytest.mark.parametrize(
    ("files", "names", "expected"),
    [
        (["own/set/train.jsonl", "set/train.jsonl"], (), ["own/set/train.jsonl"]),
        (["set/train.jsonl", "train.jsonl"], (), ["set/train.jsonl"]),
        (["set/train-1-of-2.parquet", "set/train-0-of-2.parquet", "set/test-0.parquet"], (),
         ["set/train-0-of-2.parquet", "set/train-1-of-2.parquet"]),
        (["own/set/data/train-0.parquet"], (), ["own/set/data/train-0.parquet"]),
        (["set/train.jsonl", "set/train.parquet"], (), ["set/train.parquet"]),
        (["set/train.json", "set/train.jsonl"], (), ["set/train.jsonl"]),
        (["it_data.json", "set/train.jsonl"], ("*_data.json",), ["it_data.json"]),
        (["set/it_data.json", "it_data.json"], ("*_data.json",), ["set/it_data.json"]),
    ],
)  # fmt: skip
def test_local_copies_come_first(tmp_path, files, names, expected):
    for file in files:
        write(tmp_path / file, ROWS[:1])
    found = dataset_files("own/set", "train", str(tmp_path), names)
    assert found == [str(tmp_path / file) for file in expected]


def test_the_root_may_be_the_dataset_s_folder_or_a_file(tmp_path):
    write(tmp_path / "set" / "train.jsonl", ROWS[:1])
    file = str(tmp_path / "set" / "train.jsonl")
    assert dataset_files("own/set", "train", str(tmp_path / "set")) == [file]
    assert dataset_files("own/set", "train", file) == [file]
    with pytest.raises(UserError):  # Another dataset's train.jsonl is not ours.
        dataset_files("own/other", "train", str(tmp_path / "set"), hub=False)


def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError) as error:
        dataset_files("own/set", "train", "", hub=False)
    assert str(error.value) == (
        "own/set: the split 'train' is not on this machine; "
        "put train.parquet or train.jsonl into <data.root>/set"
    )
    monkeypatch.setitem(sys.modules, "datasets", None)  # As if it was not installed.
    with pytest.raises(UserError, match="or run launch/setup.sh hf: the package datasets"):
        dataset_files("own/set", "train", str(tmp_path))

    def offline(name, split):
        raise ConnectionError(f"Couldn't reach {name}\n(offline mode is enabled)")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=offline))
    with pytest.raises(UserError) as error:
        dataset_files("own/set", "train", str(tmp_path))
    assert "ConnectionError: Couldn't reach own/set (offline mode is enabled)" in str(error.value)
    assert "\n" not in str(error.value)


def test_the_package_s_cache_is_read(tmp_path, monkeypatch):
    path = tmp_path / "cache-0.arrow"
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(path), table.schema) as stream:
        stream.write_table(table)
    loaded = types.SimpleNamespace(cache_files=[{"filename": str(path)}])
    package = types.SimpleNamespace(load_dataset=lambda name, split: {"train": loaded}[split])
    monkeypatch.setitem(sys.modules, "datasets", package)
    [file] = dataset_files("own/set", "train", str(tmp_path / "nothing"))
    assert _read(file) == ROWS


def test_the_real_package(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the extra 'hf' is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    write(tmp_path / "own" / "set" / "train.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)  # The package takes a folder's path for a dataset's name.
    [file] = dataset_files("own/set", "train", "")
    assert file.endswith(".arrow") and _read(file) == ROWS
    with pytest.raises(UserError, match="the package datasets says: "):
        dataset_files("nobody/has-this", "train", "")


def test_rows_of_a_local_copy_or_of_the_package(tmp_path, monkeypatch):
    asked = []

    def load(*name, split):
        asked.append((*name, split))
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    rows = HubRows(str(tmp_path), "set", "part")
    assert [row.fields for row in rows.read("train")] == ROWS and rows.count("train") == 150
    assert [row.place for row in rows.read("train", 2, 4)] == [
        "set/part:train:2",
        "set/part:train:3",
    ]
    assert rows.files("train") == [] and asked == [("set", "part", "train")] * 3
    write(tmp_path / "set" / "part" / "train.jsonl", ROWS[:5])
    path = str(tmp_path / "set" / "part" / "train.jsonl")
    assert rows.files("train") == [path] and rows.count("train") == 5
    assert list(rows.read("train", 3)) == [(f"{path}:4", ROWS[3]), (f"{path}:5", ROWS[4])]
    assert len(asked) == 3
