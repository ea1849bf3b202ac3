"""Parts of a mixture: seeded, nested, and nothing else is ever read."""

import dataclasses

import numpy as np

from ift_jax.config.schema import DataConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import Variant
from ift_jax.data.subset import chosen_tasks, with_examples, with_tasks
from tests.data.made_stores import example, make_mixture, make_store

NAMES = [f"task{k}" for k in range(40)]


def test_fewer_tasks_are_among_more_and_depend_on_names_and_seed_alone():
    parts = [chosen_tasks(NAMES, n, seed=3) for n in range(1, 41)]
    assert [len(part) for part in parts] == list(range(1, 41))
    assert all(small < large for small, large in zip(parts, parts[1:], strict=False))
    assert chosen_tasks(reversed(NAMES), 7, seed=3) == parts[6]
    assert chosen_tasks(NAMES, 7, seed=4) != parts[6]
    assert chosen_tasks(NAMES, 0, seed=3) == frozenset(NAMES) == chosen_tasks(NAMES, 99, seed=3)


def test_some_tasks_keep_their_order_rates_and_stores(tmp_path):
    mixture = make_mixture(tmp_path, [3, 4, 5], rates=[1.0, 2.0, 3.0])
    part = with_tasks(mixture, frozenset({"task2", "task0"}))
    assert part.tasks == ["task0", "task2"]
    assert part.rates.tolist() == [1.0, 3.0]
    assert part.stores == [mixture.stores[0], mixture.stores[2]]


def test_fewer_examples_are_among_more_and_are_the_same_records_in_all_variants(tmp_path):
    mixture = make_mixture(tmp_path, [50, 5], variants=2, shards=2)
    chosen = {}
    for n in (1, 7, 20, 50):
        part = with_examples(mixture, n, seed=1)
        assert part.sizes == [[n, n], [min(n, 5)] * 2]
        records = [set(variant.indices.tolist()) for variant in part.stores[0].variants]
        assert records[0] == records[1]
        chosen[n] = records[0]
        assert part.stores[0].manifest["examples"] == 2 * n
    assert chosen[1] < chosen[7] < chosen[20] < chosen[50]
    assert with_examples(mixture, 7, seed=2).stores[0].indices.tolist() != sorted(chosen[7])


def test_a_view_gives_what_the_whole_store_gives(tmp_path):
    mixture = make_mixture(tmp_path, [30], encoder=9)
    whole, part = mixture.stores[0], with_examples(mixture, 8, seed=0).stores[0]
    for i in range(8):
        j = int(np.flatnonzero(whole.indices == part.indices[i])[0])
        assert part.tokens(i).tolist() == whole.tokens(j).tolist()
        assert part.weights(i).tolist() == whole.weights(j).tolist()
        assert part.encoder_tokens(i).tolist() == whole.encoder_tokens(j).tolist()
        assert part.references(i) == whole.references(j)
        assert part.choices(i) == whole.choices(j)
        for name in ("lengths", "encoder_lengths", "trained_tokens", "prompt_lengths"):
            assert getattr(part, name)[i] == getattr(whole, name)[j]


def test_a_part_of_a_store_of_pairs_holds_pairs(tmp_path):
    pairs = [dataclasses.replace(example(n), rejected_start=n // 2) for n in range(6, 16)]
    whole = make_store(tmp_path, "pairs", [pairs, pairs[::-1]])
    mixture = Mixture(["pairs"], np.ones(1), [whole], [[]])
    part = with_examples(mixture, 4, seed=0).stores[0]
    assert part.manifest["pairs"] == part.manifest["examples"] == 8
    joined = np.concatenate([variant.lengths for variant in whole.variants])[part.places]
    assert joined.tolist() == [n for variant in part.variants for n in variant.lengths.tolist()]
    for variant, of_whole in zip(part.variants, whole.variants, strict=True):
        for name in Variant.ARRAYS:
            array = getattr(of_whole, name)
            assert len(array) == 10 and len(getattr(variant, name)) == 4
        for i, n in enumerate(variant.lengths.tolist()):
            assert [len(side.tokens) for side in variant.sides(i)] == [n // 2, n - n // 2]


def test_batches_hold_the_chosen_examples_alone_and_each_once_an_epoch(tmp_path):
    mixture = make_mixture(tmp_path, [40, 40])
    data = DataConfig(max_length=48, window=64)
    part = with_examples(mixture, 6, seed=5)
    plan = BatchPlan(part, data, "decoder", 2, seed=5, epochs=1)
    read = [
        tuple(batch["tokens"][row][batch["segment_ids"][row] == segment].tolist())
        for batch in map(plan.batch, range(plan.n_steps))
        for row in range(2)
        for segment in range(1, int(batch["segment_ids"][row].max()) + 1)
    ]
    expected = [tuple(store.tokens(i).tolist()) for store in part.stores for i in range(6)]
    assert sorted(read) == sorted(expected)
    # Plans are kept on disk: one of another part of the same stores is another plan.
    other = BatchPlan(with_examples(mixture, 9, 5), data, "decoder", 2, seed=5, epochs=1)
    assert other.n_examples == 18
