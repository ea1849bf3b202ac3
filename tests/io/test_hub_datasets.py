"""Data sets of the hub: the cache comes first, and the commit decides the rows."""

import json
import os
import sys

import pytest

from ift_jax.config import data_items
from ift_jax.errors import UserError
from ift_jax.io import hub_datasets
from ift_jax.sources.row_files import read_rows
from tests import fake_hub
from tests.fake_hub import COMMIT, prepare

OLD, NEW = "a" * 40, "d" * 40


@pytest.fixture(autouse=True)
def forget():
    yield
    hub_datasets.load.cache_clear()


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """The caches of the packages, empty, and no network."""
    fake_hub.without_network(monkeypatch, tmp_path)
    return tmp_path


def absolute(text):
    return data_items.absolute(text)


def rows(item, split="train"):
    return [row.fields() for path in item.files[split] for row in read_rows(path)]


def test_the_newest_rows_of_the_cache_are_read_without_a_network(caches):
    prepare(caches, OLD, train=fake_hub.pairs(3))
    prepare(caches, NEW, train=fake_hub.pairs(4), test_sft=fake_hub.pairs(1))
    os.utime(caches / "datasets" / "own___my_set" / "default" / "0.0.0" / OLD, (1, 1))
    assert absolute("hf://own/MySet") == f"hf://own/MySet:default@{NEW}"
    (item,) = data_items.parse(f"hf://datasets/own/MySet@{OLD}")
    assert rows(item) == [{"prompt": f"Say {k}", "completion": f"{k}!"} for k in range(3)]
    (item,) = data_items.parse(f"hf://own/MySet:default@{NEW}=2.5")
    assert (item.text, item.weight) == (f"hf://own/MySet:default@{NEW}", 2.5)
    assert len(rows(item)) == 4 and len(rows(item, "test")) == 1
    assert item.name == "MySet"


def test_a_branch_is_the_commit_that_was_last_fetched(caches):
    prepare(caches, OLD, train=fake_hub.pairs(3))
    prepare(caches, NEW, train=fake_hub.pairs(4))
    of_hub = caches / "hub" / "datasets--own--MySet"
    for path, text in ((f"snapshots/{OLD}/README.md", "x"), ("refs/main", OLD), ("refs/v1", OLD)):
        (of_hub / path).parent.mkdir(parents=True, exist_ok=True)
        (of_hub / path).write_text(text)
    assert absolute("hf://own/MySet") == f"hf://own/MySet:default@{OLD}"
    assert absolute("hf://own/MySet@v1") == f"hf://own/MySet:default@{OLD}"


def test_splits_of_other_names_are_told_apart(caches):
    splits = {name: fake_hub.pairs(2) for name in ("train_sft", "train_gen", "test_sft", "dev")}
    prepare(caches, OLD, **splits)
    with pytest.raises(UserError, match="has the splits train_sft, .* hf://own/MySet#train_sft"):
        data_items.parse("hf://own/MySet")
    (item,) = data_items.parse("hf://own/MySet#train_gen")
    assert list(item.files) == ["train"] and item.name == "MySet_train_gen"
    assert item.note.endswith("splits that are not read: train_sft, test_sft, dev")
    with pytest.raises(UserError, match="there is no split 'train'; it has train_sft, train_gen"):
        data_items.parse("hf://own/MySet#train")
    prepare(caches, NEW, "one", train_sft=fake_hub.pairs(2), dev=fake_hub.pairs(1))
    (item,) = data_items.parse("hf://own/MySet:one")
    assert sorted(item.files) == ["train", "validation"] and item.name == "MySet_one"


def test_what_the_cache_lacks_is_named_with_what_it_has(caches):
    prepare(caches, OLD, train=fake_hub.pairs(3))
    for text in ("hf://own/MySet@v2", "hf://own/MySet:other", f"hf://own/MySet@{NEW}"):
        with pytest.raises(UserError) as error:
            data_items.parse(text)
        assert str(error.value).startswith(f"--data: {text}: is not in the cache of the package")
        assert f"; the cache has hf://own/MySet:default@{OLD}" in str(error.value)
    (caches / "datasets/own___my_set/default/0.0.0" / OLD / "my_set-train.arrow").unlink()
    with pytest.raises(UserError, match="is not in the cache of the package datasets"):
        data_items.parse("hf://own/MySet")


def test_messages_of_mixed_types_are_messages(caches):
    first, second = ({"name": "f", "arguments": arguments} for arguments in ({"a": 1}, {"a": "b"}))
    conversations = [
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"function": call}]}]}
        for call in (first, second)
    ]
    prepare(caches, OLD, train="".join(json.dumps(row) + "\n" for row in conversations))
    (item,) = data_items.parse("hf://own/MySet")
    assert rows(item) == conversations


def test_a_fetched_data_set_is_read_again_without_the_hub(caches, monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with fake_hub.serve() as hub:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
        constants = huggingface_hub.constants
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        (item,) = data_items.parse("hf://own/MySet")
        assert item.text == f"hf://own/MySet:default@{COMMIT}"
        assert len(rows(item)) == 60 and len(rows(item, "test")) == 1
        hub_datasets.load.cache_clear()
        hub.requests.clear()
        assert data_items.parse("hf://own/MySet")[0].files == item.files
        assert hub.requests == []
        for text, expected in (
            ("hf://own/MySet@v9", "hf://own/MySet@v9: the data set has no revision 'v9'"),
            ("hf://own/MySet:no", r"BuilderConfig 'no' not found. Available: \['default', 'oth"),
            ("hf://own/none", "hf://own/none: there is no such data set on the hub, or it is pri"),
        ):
            with pytest.raises(UserError, match=expected):
                data_items.parse(text)
    assert absolute("hf://own/MySet") == f"hf://own/MySet:default@{COMMIT}"
    with pytest.raises(UserError, match="and the hub cannot be asked"):
        data_items.parse("hf://own/MySet:other")


def test_the_extra_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"--data: hf://a/b: datasets is not inst.*setup.sh hf"):
        data_items.parse("hf://a/b")


@pytest.mark.parametrize("text", ["hf://", "hf://a/b/c", "hf://a/b:", "hf://a/b@", "hf://a b"])
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(UserError, match="expected hf://OWNER/NAME, then"):
        data_items.parse(text)


def test_the_same_request_may_leave_the_commit_open():
    before = f"hf://own/MySet:default@{OLD}=2,/rows.jsonl=1"
    assert data_items.is_absolute(before) and not data_items.is_absolute("hf://own/MySet@main")
    for asked in ("hf://own/MySet=2,/rows.jsonl=1", f"hf://own/MySet@{OLD}=2,/rows.jsonl=1"):
        assert data_items.is_same(asked, before)
    for asked in (
        "hf://own/MySet=2",
        "hf://own/MySet=3,/rows.jsonl=1",
        "hf://own/MySet#x=2,/rows.jsonl=1",
        f"hf://own/MySet@{NEW}=2,/rows.jsonl=1",
        "/rows.jsonl=2,/rows.jsonl=1",
    ):
        assert not data_items.is_same(asked, before)
