"""The token store on disk."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ift_jax.data.store import TokenStore, part_path
from ift_jax.errors import UserError
from ift_jax.io.temporary import is_temporary
from ift_jax.preparation.drop_limits import check_store
from ift_jax.preparation.store_writer import PartBuilder
from ift_jax.text.dropped import Dropped
from tests.data.made_stores import example, make_store


def test_round_trip_over_parts_and_variants(tmp_path):
    made = [[example(n, n % 4) for n in range(1, 12)], [example(n + 1) for n in range(5)]]
    store = make_store(tmp_path, "s", made, shards=3)
    assert len(store) == 11 and store.n_variants == 2 and len(store.variants[1]) == 5
    for v, examples in enumerate(made):
        variant = store.variants[v]
        assert sorted(variant.indices.tolist()) == list(range(len(examples)))
        for i in range(len(variant)):
            source = examples[variant.indices[i]]
            np.testing.assert_array_equal(variant.tokens(i), source.tokens)
            np.testing.assert_array_equal(variant.weights(i), source.weights)
            np.testing.assert_array_equal(variant.encoder_tokens(i), source.encoder_tokens)
            assert variant.tokens(i).dtype == np.int32
            assert variant.weights(i).dtype == np.float32
            assert variant.references(i) == source.references
            assert variant.prompt_lengths[i] == source.prompt_length
            assert variant.lengths[i] == len(source.tokens)
            assert variant.encoder_lengths[i] == len(source.encoder_tokens)
            assert variant.trained_tokens[i] == np.count_nonzero(source.weights)
            assert variant.prefix_lengths[i] == source.prefix_length
            assert not variant.tokens(i).flags.writeable  # A view of the file.
    with pytest.raises(IndexError):
        store.tokens(11)


def test_manifest_counts(tmp_path):
    part = PartBuilder()
    for reason in ("too_long", "too_long", "other"):
        part.add_record()
        part.drop(Dropped(reason, "max_length", 70) if reason == "too_long" else Dropped(reason))
    for k, n in enumerate((3, 4, 9)):
        part.add_record()
        part.add(example(n, prefix=1), k)
    untrained = example(4)
    untrained.weights[:] = 0
    part.add_record()
    part.add(untrained, 6)
    report = part.write(part_path(tmp_path, 0))
    assert report == json.loads((tmp_path / "part-00000.json").read_bytes())
    assert report["dropped"] == {"nothing_trained": 1, "other": 1, "too_long": 2}
    assert report["over_limit"] == {"max_length 128": 2}
    assert (report["records"], report["examples"], report["tokens"]) == (7, 3, 16)
    assert report["trained_tokens"] == 2 + 3 + 8
    assert report["lengths"] == {"4": 2, "16": 1}


def test_half_written_store_is_not_read(tmp_path):
    store = make_store(tmp_path, "s", [[example(5)]])
    assert not (tmp_path / "s.partial").exists()
    (store.path / "manifest.json").rename(tmp_path / "away")
    with pytest.raises(UserError, match="not a complete token store"):
        TokenStore.open(store.path)
    (store.path / "manifest.json").write_text('{"format_ver')
    with pytest.raises(UserError, match="not a complete token store"):
        TokenStore.open(store.path)
    (store.path / "manifest.json").write_text('{"format_version": 0}')
    with pytest.raises(UserError, match="format_version is 0"):
        TokenStore.open(store.path)


def test_many_stores_need_no_file_descriptors(tmp_path):
    import os

    stores = [make_store(tmp_path, f"s{i}", [[example(5)]]) for i in range(20)]
    before = len(os.listdir("/proc/self/fd"))
    kept = [store.tokens(0) for store in stores]
    assert len(os.listdir("/proc/self/fd")) == before and len(kept) == 20


def test_a_store_that_lost_too_much_is_an_error(tmp_path):
    store = make_store(tmp_path, "s", [[example(5)] * 18])
    store.manifest["dropped"] = {"too_long": 1}
    store.manifest["truncated_examples"] = 1
    check_store(store, "t", 0.11)
    with pytest.raises(
        UserError, match=r"task 't'.*2 of 19 .*too_long 1, truncated 1.*max_dropped"
    ):
        check_store(store, "t", 0.1)
    empty = make_store(tmp_path, "empty", [[]])
    with pytest.raises(
        UserError, match=r"task 't'.*no example is left to use \(its source is empty"
    ):
        check_store(empty, "t", 1.0)


@pytest.mark.parametrize(
    ("n_input", "preprocessors", "why"),
    [
        (0, 1, "its source is empty"),
        (3000, 1, "its preprocessors kept none of the 3,000 records of its source"),
        (None, 2, "its source is empty, or its preprocessors kept none of its records"),
        (None, 0, "its source is empty"),
    ],
)
def test_an_empty_store_says_whether_its_source_or_its_preprocessors_are_to_blame(
    tmp_path, n_input, preprocessors, why
):
    empty = make_store(tmp_path, "empty", [[]])
    empty.manifest.update(input_examples=n_input, preprocessors=preprocessors)
    with pytest.raises(UserError) as error:
        check_store(empty, "t", 1.0)
    assert str(error.value).endswith(f"no example is left to use ({why})")


@pytest.mark.parametrize(
    ("lengths", "cure"),
    [
        # 40 of 140 are too long; with 1,024 tokens one of them still is.
        (
            {"max_length 576": 30, "max_length 1024": 9, "max_length 9984": 1},
            "; data.max_length=1024 (it is 512) would keep 99% of them, or raise that fraction",
        ),
        (
            {"max_length 576": 40},
            "; data.max_length=576 (it is 512) would keep all of them, or raise that fraction",
        ),
        ({}, ": raise that fraction"),
    ],
)
def test_the_error_names_the_length_that_would_keep_nearly_all(tmp_path, lengths, cure):
    store = make_store(tmp_path, "s", [[example(5)] * 100])
    store.manifest.update(dropped={"too_long": 40}, over_limit=lengths, max_length=512)
    with pytest.raises(UserError) as error:
        check_store(store, "t", 0.05)
    assert str(error.value).startswith("task 't', split 'train': 40 of 140 examples were dropped")
    assert str(error.value).endswith(f"data.max_dropped_fraction=0.05 allows{cure}")


def test_the_parts_of_a_store_reach_the_disk_before_its_name(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(descriptor):
        fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        done.append("a temporary file" if is_temporary(path) else path.name)

    def recorded_rename(before, after):
        done.append("rename")
        rename(before, after)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    make_store(tmp_path, "s", [[example(3), example(4)]], shards=2)
    # Writing a part waits for nothing: only a whole store is kept in a crash.
    parts = ["part-00000.arrow", "part-00001.arrow"]
    assert done == [*parts, "a temporary file", "s.partial", "rename", tmp_path.name]
