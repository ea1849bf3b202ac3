"""The source of published rows: splits, sources of a mixture, draws, errors, laziness."""

import importlib
import time

import pytest
import seqio

from ift_jax.errors import UserError
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import OnlyRows, RowsSource, conversation
from tests.sources.dataset_files import write

MODULES = (
    "alpaca", "dolly", "gsm8k.tasks", "instructgpt", "lima", "open_assistant", "self_instruct",
    "tulu",
)  # fmt: skip


def render(row, draws):
    return {"inputs": row["q"], "targets": f"{row['a']}{draws.below(1000)}"}


def _source(root, **options):
    return RowsSource("own/set", render, str(root), fields=("inputs", "targets"), **options)


def test_one_row_in_n_is_kept_out_and_all_has_every_row(tmp_path):
    write(tmp_path / "set" / "train.jsonl", [{"q": str(i), "a": "x"} for i in range(95)])
    source = _source(tmp_path, keep_out=10)
    numbers = {split: [int(r["inputs"]) for r in source.records(split)] for split in source.splits}
    assert sorted(numbers["train"] + numbers["validation"]) == numbers["all"] == list(range(95))
    for block in range(9):  # Whole blocks of ten: one of each.
        assert sum(block * 10 <= n < block * 10 + 10 for n in numbers["validation"]) == 1
    assert source.num_input_examples("train") == len(numbers["train"])


def test_what_a_row_expands_to_stays_in_one_split(tmp_path):
    rows = [{"q": str(i), "answers": ["a", "b", "c"][: i % 4]} for i in range(80)]
    write(tmp_path / "set" / "train.parquet", rows)

    def expand(row):
        return [{"q": row["q"], "a": a} for a in row["answers"]]

    source = _source(tmp_path, keep_out=8, expand=expand)
    inputs = {s: [r["inputs"] for r in source.records(s)] for s in source.splits}
    assert not set(inputs["train"]) & set(inputs["validation"])
    assert len(inputs["all"]) == sum(len(row["answers"]) for row in rows)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_sources_share_the_rows_and_none_is_dropped_unseen(tmp_path, ending):
    rows = [{"q": str(i), "a": "x", "from": "abc"[i % 3]} for i in range(300)]
    write(tmp_path / "set" / f"train.{ending}", rows)
    found = {}
    for values in (("a",), ("b", "c")):
        source = _source(tmp_path, only=OnlyRows("from", values, ("a", "b", "c")))
        found[values] = [int(record["inputs"]) for record in source.records("train")]
    assert found[("a",)] == list(range(0, 300, 3))
    assert found[("b", "c")] == [i for i in range(300) if i % 3]
    with pytest.raises(UserError, match=r"from is 'c', none of the 2 of this release"):
        list(_source(tmp_path, only=OnlyRows("from", ("a",), ("a", "b"))).records("train"))


def test_draws_depend_on_seed_and_index_alone(tmp_path):
    write(tmp_path / "set" / "train.jsonl", [{"q": str(i), "a": "x"} for i in range(40)])
    source = _source(tmp_path)
    whole = list(source.records("train", seed=3))
    shards = [list(source.records("train", seed=3, shard_index=k, num_shards=3)) for k in range(3)]
    assert [shards[i % 3][i // 3] for i in range(40)] == whole
    assert list(_source(tmp_path).records("train", seed=3)) == whole
    other = list(source.records("train", seed=4))
    assert [r["inputs"] for r in other] == [r["inputs"] for r in whole] and other != whole


def test_rows_that_are_not_of_the_dataset_are_named(tmp_path):
    write(tmp_path / "set" / "train.jsonl", [{"q": "1", "a": "x"}, {"q": "2", "b": "x"}])
    with pytest.raises(UserError, match=r"train.jsonl:2: field 'a' is missing; found q, b"):
        list(_source(tmp_path).records("train"))
    write(tmp_path / "set" / "train.json", ["text"])
    (tmp_path / "set" / "train.jsonl").unlink()
    with pytest.raises(UserError, match=r"train.json: row 0: expected an object, found str"):
        list(_source(tmp_path).records("train"))
    with pytest.raises(ValueError, match="the user's text is NoneType"):
        conversation(("user", None))


def test_the_fingerprint_follows_the_content(tmp_path):
    file = tmp_path / "set" / "train.jsonl"
    write(file, [{"q": "1", "a": "x"}])
    first = _source(tmp_path).fingerprint("train")
    assert _source(tmp_path).fingerprint("train") == first
    assert _source(tmp_path, keep_out=5).fingerprint("train") != first
    time.sleep(0.01)
    write(file, [{"q": "1", "a": "y"}])
    assert _source(tmp_path).fingerprint("train") != first


@pytest.mark.usefixtures("own_registry")
def test_registering_needs_no_data_and_may_be_repeated(tmp_path):
    register_task("set", _source(""))
    register_task("set", _source(""))
    with pytest.raises(UserError, match="'set' is registered already, with other data"):
        register_task("set", _source(tmp_path))
    with pytest.raises(UserError, match="own/set: the split 'train' is not on this machine"):
        list(seqio.TaskRegistry.get("set").source.records("train"))


@pytest.mark.usefixtures("own_registry")
def test_all_modules_register_fast_and_twice_without_data():
    modules = [importlib.import_module(f"tasks.{name}") for name in MODULES]
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        registry.reset()
    start = time.process_time()  # Other processes may have the cores meanwhile.
    for module in modules:
        importlib.reload(module).register("/nothing/there")
    assert time.process_time() - start < 0.5
    names = set(seqio.TaskRegistry.names())
    assert len(names) == 54
    for module in modules:
        module.register("/nothing/there")
    assert set(seqio.TaskRegistry.names()) == names
