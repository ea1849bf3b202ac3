"""A store holds what one SeqIO host reads, whatever the number of parts, processes or workers."""

import sys
import textwrap

import pytest

from ift_jax.config.schema import TokenizerConfig
from ift_jax.data.randomness import stable_hash
from ift_jax.errors import UserError
from ift_jax.preparation.prepare import prepare
from tests.preparation.runs import changed, contents, quiet, store_of

pytestmark = pytest.mark.usefixtures("own_registry")

# 150 rows are 4 parts of at most 40; `ds.take` keeps 100 of them.
ROWS = 150
MODULE = """
    import functools
    import random

    import seqio
    import tensorflow as tf

    from ift_jax.sources.base import PythonDataSource
    from ift_jax.sources.features import TEXT_FEATURES

    ROWS = 150

    def text(i):
        return {"inputs": tf.strings.as_string(i), "targets": tf.strings.as_string(i)}

    def plain(split, shuffle_files, seed=None):
        return tf.data.Dataset.range(ROWS).map(text)

    def seeded(split, shuffle_files, seed=None):
        return tf.data.Dataset.range(ROWS).shuffle(ROWS, seed=seed).map(text)

    def unseeded(split, shuffle_files):
        return tf.data.Dataset.range(ROWS).shuffle(ROWS).map(text)

    def three_shuffled(split, shuffle_files):
        return tf.data.Dataset.range(3).shuffle(3).map(text)

    class Numbers(PythonDataSource):
        fields = ("inputs", "targets")

        def items(self, split):
            return range(ROWS)

        def render(self, item, split, index, seed):
            return {"inputs": str(item), "targets": str(item)}

        def files(self, split):
            return []

    class Drawn(Numbers):
        def render(self, item, split, index, seed):
            return {"inputs": str(item), "targets": str(random.random())}

    @seqio.map_over_dataset
    def again(example):
        return example | {"inputs": example["targets"]}

    @seqio.map_over_dataset(num_seeds=1)
    def draw(example, seed):
        digit = tf.random.stateless_uniform([], seed, maxval=10**6, dtype=tf.int32)
        return example | {"targets": example["targets"] + " " + tf.strings.as_string(digit)}

    @seqio.map_over_dataset
    def draw_unseeded(example):
        digit = tf.random.uniform([], maxval=10**6, dtype=tf.int32)
        return example | {"targets": tf.strings.as_string(digit)}

    def take(dataset):
        return dataset.take(100)

    def every_third(dataset):
        return dataset.enumerate().filter(lambda i, _: i % 3 == 0).map(lambda _, x: x)

    def twice(dataset):
        return dataset.flat_map(lambda x: tf.data.Dataset.from_tensors(x).repeat(2))

    def pairs(dataset):
        def join(batch):
            joined = tf.strings.reduce_join(batch["targets"], separator=" ")
            return {"inputs": joined, "targets": joined}

        return dataset.batch(2).map(join)

    CASES = {
        "plain": (plain, []),
        "seeded": (seeded, []),
        "seed_drawn": (plain, [draw]),
        "take": (plain, [take]),
        "take_of_seeded": (seeded, [take]),
        "shuffle_with_seed": (plain, [lambda dataset: dataset.shuffle(ROWS, seed=5)]),
        "cache": (seeded, [lambda dataset: dataset.cache()]),
        "third": (plain, [every_third]),
        "twice": (plain, [twice]),
        "pairs": (plain, [pairs]),
        "none_left": (plain, [lambda dataset: dataset.skip(ROWS - 10)]),
        "ours": (Numbers, []),
        "ours_mapped": (Numbers, [again]),
        "ours_partial": (Numbers, [functools.partial(again)]),
        "ours_seed_drawn": (Numbers, [again, draw]),
        "ours_take": (Numbers, [take]),
        "unseeded": (unseeded, []),
        "unseeded_three": (three_shuffled, []),
        "unseeded_preprocessor": (plain, [lambda dataset: dataset.shuffle(ROWS)]),
        "unseeded_draw": (Numbers, [draw_unseeded]),
        "unseeded_render": (Drawn, []),
    }

    def register(root):
        for name, (made_by, preprocessors) in CASES.items():
            if isinstance(made_by, type):
                source = made_by(["train"])
            else:
                source = seqio.FunctionDataSource(made_by, ["train"], {"train": ROWS})
            seqio.TaskRegistry.add(
                name, source=source, preprocessors=preprocessors, output_features=TEXT_FEATURES
            )
        repeatable = [name for name in CASES if not name.startswith("unseeded")]
        seqio.MixtureRegistry.add("all_cases", repeatable, default_rate=1.0)
        few = ["take_of_seeded", "ours_seed_drawn", "ours_mapped"]
        seqio.MixtureRegistry.add("few_cases", few, default_rate=1.0)
"""
COUNTS = {
    "plain": ROWS,
    "seeded": ROWS,
    "seed_drawn": ROWS,
    "take": 100,
    "take_of_seeded": 100,
    "shuffle_with_seed": ROWS,
    "cache": ROWS,
    "third": ROWS // 3,
    "twice": 2 * ROWS,
    "pairs": ROWS // 2,
    "none_left": 10,
    "ours": ROWS,
    "ours_mapped": ROWS,
    "ours_partial": ROWS,
    "ours_seed_drawn": ROWS,
    "ours_take": 100,
}


@pytest.fixture
def cases(config, tmp_path):
    """A run on all tasks of `MODULE` that may be prepared, with a tokenizer of another task."""
    (tmp_path / "modules" / "one_host_cases.py").write_text(textwrap.dedent(MODULE))
    tokenizer = TokenizerConfig(prepare(config, log=quiet).tokenizer_path)
    return changed(
        config,
        tokenizer=tokenizer,
        data__modules=("one_host_cases",),
        data__mixture="all_cases",
        data__variants=2,
    )


@pytest.fixture(autouse=True)
def module_is_imported_anew(monkeypatch):
    monkeypatch.delitem(sys.modules, "one_host_cases", raising=False)


def of_one_host(name, seed):
    """Return the targets of a task that SeqIO reads once as a whole."""
    import seqio

    from ift_jax.sources.task_examples import with_optional_seed

    dataset = with_optional_seed(seqio.TaskRegistry.get(name)).get_dataset(
        None,
        "train",
        shuffle=False,
        seed=seed,
        shard_info=seqio.ShardInfo(0, 1),
        try_in_mem_cache=False,
    )
    return [example["targets"].decode() for example in dataset.as_numpy_iterator()]


def test_each_variant_is_what_one_seqio_host_reads(cases):
    mixture = prepare(cases, log=quiet).mixture
    assert sorted(mixture.tasks) == sorted(COUNTS)
    for name, store in zip(mixture.tasks, mixture.stores, strict=True):
        assert store.manifest["shards"] == 4, name
        for v, variant in enumerate(store.variants):
            found = {}
            for i in range(len(variant)):
                found.setdefault(int(variant.indices[i]), []).append(variant.references(i)[0])
            seed = stable_hash("render", cases.seed, name, v, bits=31)
            expected = of_one_host(name, seed)
            assert len(expected) == COUNTS[name]
            # Each once, at its place in the order of the one host.
            assert found == {i: [target] for i, target in enumerate(expected)}, name


def test_seeded_tasks_have_each_row_once_and_another_order_in_another_variant(cases):
    store = store_of(changed(cases, data__mixture="seeded"))
    rows = [[v.references(i)[0] for i in range(len(v))] for v in store.variants]
    assert all(sorted(order, key=int) == [str(i) for i in range(ROWS)] for order in rows)
    assert rows[0] != rows[1]


def stores_of(config, **how):
    prepared = prepare(changed(config, data__mixture="few_cases"), log=quiet, **how)
    return {store.path.name: contents(store.path) for store in prepared.mixture.stores}


@pytest.mark.slow
def test_processes_make_the_same_bytes(cases, tmp_path):
    several = changed(cases, data__processes=2, data__store_dir=str(tmp_path / "other"))
    assert stores_of(several) == stores_of(cases)


def test_beam_makes_the_same_bytes(cases, tmp_path):
    pytest.importorskip("apache_beam")
    from ift_jax.preparation.beam import checked_options

    beam = checked_options("DirectRunner", ())
    by_beam = stores_of(changed(cases, data__store_dir=str(tmp_path / "other")), beam=beam)
    assert by_beam == stores_of(cases)


def test_only_what_is_known_to_be_per_example_is_read_in_shards(cases, tmp_path):
    import seqio

    from ift_jax.preparation.shards import parts_of_store

    prepare(changed(cases, data__mixture="ours_take"), log=quiet)  # Registers all.
    in_shards = {"ours", "ours_mapped", "ours_partial"}
    for name in COUNTS:
        parts = parts_of_store(seqio.TaskRegistry.get(name), "train", 2, tmp_path)
        assert len(parts) == (8 if name in in_shards else 2), name
        assert len({path for part in parts for path in part.paths}) == 8


def test_a_pass_that_was_cut_off_is_made_again_with_the_same_bytes(cases, tmp_path, monkeypatch):
    from ift_jax.preparation.store_writer import PartBuilder

    config = changed(cases, data__mixture="take_of_seeded")
    whole = store_of(changed(config, data__store_dir=str(tmp_path / "whole")))
    write = PartBuilder.write

    def cut_off(self, path):
        if path.name.startswith("part-00002"):
            raise KeyboardInterrupt
        return write(self, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PartBuilder, "write", cut_off)
        store_of(config)
    assert len(list((tmp_path / "stores").glob("take_of_seeded-*.partial/*.json"))) == 2
    assert contents(store_of(config).path) == contents(whole.path)


@pytest.mark.parametrize(
    "name",
    [
        "unseeded",
        "unseeded_three",
        "unseeded_preprocessor",
        "unseeded_draw",
        "unseeded_render",
    ],
)
def test_examples_that_change_are_refused_by_task(cases, name):
    for _ in range(2):  # What the first attempt left does not let the second one pass.
        with pytest.raises(UserError) as caught:
            prepare(changed(cases, data__mixture=name), log=quiet)
        assert str(caught.value).startswith(f"task {name!r}, split 'train': its first examples")
        assert "without a seed" in str(caught.value) and "\n" not in str(caught.value)
