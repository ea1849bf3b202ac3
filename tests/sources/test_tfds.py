"""Rows of local files and of TFDS as records."""

import functools
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ift_jax.errors import UserError
from ift_jax.sources.tfds import TfdsRowsSource, plain

ROWS = [{"question": f"{i} + {i}?", "sum": 2 * i} for i in range(7)]


def _render(row, draws, split, *, ask="Say:"):
    greeting = draws.choice(("Hello!", "Hi!", "Good day!"))
    return {"inputs": f"{greeting} {ask} {row['question']}", "targets": str(row["sum"])}


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_local_files(tmp_path, ending):
    _write(tmp_path / "sums" / "small" / f"train.{ending}", ROWS)
    source = TfdsRowsSource("sums/small:1.0.0", _render, {"train": "train"}, str(tmp_path))
    records = list(source.records("train"))
    assert [record["targets"] for record in records] == [str(2 * i) for i in range(7)]
    assert records[3]["inputs"].endswith("! Say: 3 + 3?")
    assert source.num_input_examples("train") == 7
    assert source.files("train") == [str(tmp_path / "sums" / "small" / f"train.{ending}")]
    # What is drawn follows from seed and index alone, however the source is sharded.
    sharded = [list(source.records("train", shard_index=k, num_shards=2)) for k in range(2)]
    assert [r for pair in zip(*sharded, strict=False) for r in pair] == records[:6]
    assert list(source.records("train", seed=1)) != records
    dataset = source.get_dataset("train").as_numpy_iterator()
    assert [row["inputs"].decode() for row in dataset] == [r["inputs"] for r in records]


def test_expand_caps_and_what_the_fingerprint_holds(tmp_path):
    _write(tmp_path / "sums" / "all.jsonl", ROWS)

    def make(render=_render, **options):
        return TfdsRowsSource("sums", render, {"train": "all"}, str(tmp_path), **options)

    def twice(row, split):
        return [row, row] if row["sum"] > 4 else []

    source = make(expand=twice, caps={"train": 5})
    assert [record["targets"] for record in source.records("train")] == ["6", "6", "8", "8", "10"]
    assert source.num_input_examples("train") == 5
    prints = [
        s.fingerprint("train")
        for s in (make(), make(caps={"train": 5}), make(functools.partial(_render, ask="Ask:")))
    ]
    assert len(set(prints)) == 3 and make().fingerprint("train") == prints[0]
    _write(tmp_path / "sums" / "all.jsonl", ROWS[:3])
    assert make().fingerprint("train") != prints[0]


def test_what_is_not_there_is_said(tmp_path):
    import tensorflow_datasets as tfds  # noqa: F401 (its import is not what is tested)

    for dataset in ("glue/mrpc", "no_such_dataset"):
        source = TfdsRowsSource(dataset, _render, {"validation": "validation"}, str(tmp_path))
        for read in (source.num_input_examples, source.fingerprint):
            with pytest.raises(UserError) as error:
                read("validation")
            assert str(error.value) == (
                f"{dataset}: the split 'validation' is not on this machine; put validation.jsonl "
                f"(.jsonl.gz, .parquet) into {tmp_path}/{dataset}, or prepare it: "
                f"tfds.load({dataset!r})"
            )
    _write(tmp_path / "sums" / "train.jsonl", [{"question": "2?", "sum": 2}, {"sum": 3}])
    source = TfdsRowsSource("sums", _render, {"train": "train"}, str(tmp_path))
    with pytest.raises(UserError, match="sums: train row 1: no 'question'; the row has: sum"):
        list(source.records("train"))


def test_tfds_rows_and_its_count(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    import tensorflow as tf

    folder = tmp_path / "sums" / "1.0.0"  # As TFDS's download_and_prepare leaves it.
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict({"question": tfds.features.Text(), "sum": np.int64})
    with tf.io.TFRecordWriter(str(folder / "sums-train.tfrecord-00000-of-00001")) as writer:
        for row in ROWS:
            writer.write(features.serialize_example(row))
    template = tfds.core.ShardedFileTemplate(
        dataset_name="sums", data_dir=folder, split="train", filetype_suffix="tfrecord"
    )
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=[len(ROWS)], num_bytes=0, filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=[split], check_data=False
    )
    source = TfdsRowsSource("sums", _render, {"train": "train"}, str(tmp_path))
    records = list(source.records("train"))
    assert sorted(int(record["targets"]) for record in records) == [row["sum"] for row in ROWS]
    assert list(source.records("train")) == records
    assert source.num_input_examples("train") == 7
    assert source.fingerprint("train").endswith("sums/1.0.0")
    dataset = source.get_dataset("train").as_numpy_iterator()  # A dataset inside a generator.
    assert [row["targets"].decode() for row in dataset] == [r["targets"] for r in records]


def test_plain_values():
    tf = pytest.importorskip("tensorflow")
    ragged = tf.compat.v1.ragged.constant_value([[b"a"], []])
    value = {"a": b"\xc3\xa9", "b": np.int64(3), "c": np.array([b"x"], object), "d": ragged}
    assert plain(value) == {"a": "é", "b": 3, "c": ["x"], "d": [["a"], []]}
