"""Every byte of a store is checked once per machine and content, and what is wrong is said."""

import dataclasses
import json
import os
import random

import numpy as np
import pytest

from ift_jax.data import store_check
from ift_jax.data.store import DamagedStore, TokenStore, part_path
from ift_jax.data.store_copies import open_stores
from ift_jax.errors import UserError
from tests.data.made_stores import example, make_store

VOCABULARY = 1000  # The ids of made examples are below it.


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path, "s", [[example(n, n % 3) for n in range(2, 12)]], shards=2)


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are read as a whole."""
    names = []
    digest = store_check.file_digest
    monkeypatch.setattr(
        store_check, "file_digest", lambda path: names.append(path.name) or digest(path)
    )
    return names


def flip(path, offset=-200):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def damage(store):
    return open_stores([store.path], VOCABULARY).damage.get(store.path)


def test_a_store_is_read_once_per_machine_and_content(store, tmp_path, read, monkeypatch):
    for _ in range(3):
        assert damage(store) is None
    assert read == ["part-00000.arrow", "part-00001.arrow"]
    other = make_store(tmp_path, "other", [[example(3)]])
    assert damage(other) is None and damage(store) is None
    assert len(read) == 3  # Only the new one.
    os.utime(part_path(store.path, 1))  # Something wrote to it, perhaps.
    assert damage(store) is None and len(read) == 5
    monkeypatch.setattr(store_check.socket, "gethostname", lambda: "another-machine")
    assert damage(store) is None and len(read) == 7
    assert open_stores([store.path], VOCABULARY + 1).damage == {} and len(read) == 9


def test_damage_of_every_kind_is_named(store):
    part, manifest = part_path(store.path, 1), store.path / "manifest.json"
    kept = {path: path.read_bytes() for path in (part, manifest)}

    def after(change):
        change()
        found = damage(store)
        for path, content in kept.items():
            path.write_bytes(content)
        assert damage(store) is None
        return found

    where = f"{store.path}: "
    differs = "part-00001.arrow does not have the bytes that were written (SHA-256 differs)"
    assert after(lambda: flip(part)) == where + differs
    assert after(lambda: part.write_bytes(kept[part][:100])) == where + differs
    assert after(lambda: part.write_bytes(b"")) == where + differs
    missing = "part-00001.arrow cannot be read: No such file or directory"
    assert after(part.unlink) == where + missing

    def manifest_with(**changes):
        values = json.loads(kept[manifest]) | changes
        return lambda: manifest.write_text(json.dumps(values))

    for broken in (
        manifest_with(examples=99),
        manifest_with(shards="2"),
        manifest_with(sha256=None),
        manifest_with(sum=None),
    ):
        assert "does not hold the values that were written" in after(broken)
    for broken in (
        manifest.unlink,
        lambda: manifest.write_text("{"),
        lambda: manifest.write_text("[]"),
    ):
        assert "is not a complete token store" in after(broken)
    with pytest.raises(DamagedStore, match="format_version is 99"):
        manifest_with(format_version=99)()
        TokenStore.open(store.path)


def test_no_flipped_bit_goes_unnoticed(store):
    chance = random.Random(0)
    files = [store.path / "manifest.json", *(part_path(store.path, i) for i in range(2))]
    for file in files:
        whole = file.read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            file.write_bytes(damaged)
            assert damage(store), (file.name, damaged)
        file.write_bytes(whole)
        assert damage(store) is None


def test_what_cannot_be_trained_on_is_refused(tmp_path):
    good = example(6, 2)

    def made(name, **changes):
        changed = dataclasses.replace(good, **changes)
        return make_store(tmp_path, name, [[example(4), changed]])

    def with_value(field, value):
        values = getattr(good, field).copy()
        values[-1] = value
        return {field: values}

    for i, (field, value) in enumerate(
        [("tokens", VOCABULARY), ("tokens", -1), ("encoder_tokens", VOCABULARY)]
    ):
        store = made(f"ids{i}", **with_value(field, value))
        with pytest.raises(
            UserError, match=rf"column '{field}' holds id {value}; expected ids from"
        ):
            open_stores([store.path], VOCABULARY)
    choices = made("choices", choices=(("yes", [1, 2]), ("no", [3, 4000])))
    with pytest.raises(UserError, match="part-00000.arrow: column 'choice_tokens' holds id 4000"):
        open_stores([choices.path], VOCABULARY)
    for i, value in enumerate([np.nan, np.inf, -1.0]):
        store = made(f"weights{i}", **with_value("weights", np.float32(value)))
        with pytest.raises(UserError, match=f"column 'weights' holds {value}; expected finite"):
            open_stores([store.path], VOCABULARY)
    assert open_stores([made("good").path], VOCABULARY).damage == {}


def test_an_empty_store_is_whole(tmp_path):
    assert damage(make_store(tmp_path, "empty", [[]])) is None
