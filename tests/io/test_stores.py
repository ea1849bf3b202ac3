"""Token stores in a bucket: TensorFlow's client against a fake service."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from ift_jax.config.schema import Config, DataConfig, TokenizerConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.errors import UserError
from ift_jax.io import paths
from ift_jax.io.paths import as_path
from ift_jax.preparation import shards
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.preparation.prepare import prepare


def quiet(_):
    pass


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run on 95 lines, in three shards."""
    folder = tmp_path_factory.mktemp("data")
    text = "twice {} is what? "
    lines = [{"inputs": text.format(i) * (i % 3 + 1), "targets": str(2 * i)} for i in range(100)]
    (folder / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = DataConfig(
        modules=("tasks.jsonl",),
        root=str(folder / "d.jsonl"),
        mixture="jsonl",
        max_length=256,
        store_dir=str(folder / "stores"),
        processes=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "EXAMPLES_PER_SHARD", 40)
        yield Config(tokenizer=TokenizerConfig(train_vocab_size=300), data=data)


def in_bucket(config, prefix):
    data = dataclasses.replace(config.data, store_dir=f"gs://bucket/{prefix}")
    return dataclasses.replace(config, data=data)


def test_a_store_in_a_bucket_has_the_bytes_of_one_on_a_disk(config, bucket, own_cache):
    tokenizer, mixture = open_or_prepare(config, log=quiet)
    local = {path.name: path.read_bytes() for path in mixture.stores[0].path.iterdir()}
    remote = in_bucket(config, "stores")
    remote_tokenizer, there = open_or_prepare(remote, log=quiet)
    name = mixture.stores[0].path.name
    names = bucket.names(f"stores/{name}/")
    assert {n.rpartition("/")[2]: bucket.content(n) for n in names} == local and len(local) == 7
    folders = {n.split("/")[1] for n in bucket.names("stores/")}
    assert folders == {name, "tokenizers", "requests"}  # No locks, nothing partial.
    assert remote_tokenizer.fingerprint == tokenizer.fingerprint
    # The store is read from a complete copy; the fast path asks for no part a second time.
    assert there.stores[0].path == own_cache / "stores" / name
    for i in range(len(mixture.stores[0])):
        np.testing.assert_array_equal(there.stores[0].tokens(i), mixture.stores[0].tokens(i))
    bucket.requests.clear()
    lines = []
    open_or_prepare(remote, log=lines.append)
    assert lines == [] and not [r for r in bucket.requests if ".arrow" in r]
    # Another machine with the data at the same place fetches the store and prepares nothing.
    shutil.rmtree(own_cache)
    open_or_prepare(remote, log=lines.append)
    assert lines == [] and not [r for r in bucket.requests if r.startswith("P")]
    # The plan is kept beside the copy, and gives the same batches.
    ours = BatchPlan(mixture, config.data, "decoder", 4, 0, steps=2)
    for _ in range(2):
        plan = BatchPlan(there, remote.data, "decoder", 4, 0, steps=2)
        assert len(list((own_cache / "stores" / "plans").iterdir())) == 1
        for key, value in ours.batch(1).items():
            np.testing.assert_array_equal(plan.batch(1)[key], value)


def test_an_interrupted_preparation_is_resumed(config, bucket):
    remote = in_bucket(config, "again")
    name = prepare(remote, log=quiet).mixture.stores[0].path.name
    before = {n: bucket.content(n) for n in bucket.names(f"again/{name}/")}
    for lost in ("manifest.json", "part-00001.json"):
        del bucket.objects[f"again/{name}/{lost}"]
    lines = []
    prepare(remote, log=lines.append)
    assert any("2 of 3 parts are there already" in line for line in lines)
    assert {n: bucket.content(n) for n in bucket.names(f"again/{name}/")} == before


def test_a_damaged_part_is_made_again_and_a_damaged_copy_fetched_again(config, bucket, own_cache):
    remote = in_bucket(config, "broken")
    [store] = prepare(remote, log=quiet).mixture.stores
    name = f"broken/{store.path.name}"
    before = {n: bucket.content(n) for n in bucket.names(f"{name}/")}
    copy = store.path / "part-00002.arrow"
    copy.write_bytes(copy.read_bytes()[:-1])
    lines = []
    prepare(remote, log=lines.append)
    assert lines == [] and copy.read_bytes() == before[f"{name}/part-00002.arrow"]
    shutil.rmtree(own_cache)
    part = f"{name}/part-00001.arrow"
    bucket.put(part, bucket.content(part)[:-1])
    prepare(remote, log=lines.append)
    assert lines[0] == f"gs://bucket/{part}: is not what was prepared: it is made again"
    assert "2 of 3 parts are there already" in lines
    assert {n: bucket.content(n) for n in bucket.names(f"{name}/")} == before


def test_a_bucket_that_may_only_be_read_can_be_trained_from(config, bucket, own_cache, monkeypatch):
    remote = in_bucket(config, "shared")
    [store] = prepare(remote, log=quiet).mixture.stores
    before = bucket.names("shared/")
    pytest.importorskip("google.cloud.storage")
    monkeypatch.setattr(bucket, "denied", ["POST /upload"])
    paths._check_bucket_once.cache_clear()
    lines = []
    for _ in range(2):
        _, mixture = open_or_prepare(remote, log=lines.append)
        assert mixture.stores[0].path == store.path
    [line] = lines  # The second time, the note is found in the cache.
    assert line.startswith("data.store_dir gs://bucket/shared") and "403" in line
    assert f"plans and checks of stores are kept in {own_cache}" in line
    assert bucket.names("shared/") == before
    tokenizer = TokenizerConfig(path=prepare(config, log=quiet).tokenizer_path)
    other = dataclasses.replace(in_bucket(config, "denied"), tokenizer=tokenizer)
    refused = "^data.store_dir gs://bucket/denied: the bucket cannot be used: 403"
    with pytest.raises(UserError, match=refused):
        prepare(other, log=quiet)


def test_a_tokenizer_in_the_bucket(config, bucket):
    """It is identified by its content, and read once if the stores exist."""
    for size in (300, 290):
        own = dataclasses.replace(config, tokenizer=TokenizerConfig(train_vocab_size=size))
        wanted, _ = open_or_prepare(own, log=quiet)
        for name, content in wanted.files.items():
            bucket.put(f"tokenizer/{name}", content)
        given = dataclasses.replace(config, tokenizer=TokenizerConfig(path="gs://bucket/tokenizer"))
        open_or_prepare(given, log=quiet)
        bucket.requests.clear()
        lines = []
        tokenizer, _ = open_or_prepare(given, log=lines.append)
        assert tokenizer.fingerprint == wanted.fingerprint and lines == []
        assert bucket.requests.count("GET /bucket/tokenizer%2Ftokenizer.model") == 1


def test_beam_writes_to_the_bucket(config, bucket):
    pytest.importorskip("apache_beam")
    from ift_jax.preparation.beam import checked_options

    name = prepare(config, log=quiet).mixture.stores[0].path.name
    beam = checked_options("DirectRunner", [])
    prepared = prepare(in_bucket(config, "beam"), log=quiet, beam=beam)
    assert prepared.mixture.stores[0].path.name == name
    folder = as_path(config.data.store_dir) / name
    for path in folder.iterdir():
        assert bucket.content(f"beam/{name}/{path.name}") == path.read_bytes()


def test_what_cannot_be_in_a_bucket(config):
    for field in ("root", "store_dir"):
        data = dataclasses.replace(config.data, **{field: "s3://bucket/x"})
        with pytest.raises(UserError, match="on this machine|gs://BUCKET/PATH"):
            open_or_prepare(dataclasses.replace(config, data=data), log=quiet)
    with pytest.raises(UserError, match="gs://BUCKET/PATH"):
        as_path("gs://")
