"""Batches: the arrays against a slow reference, and the order contract."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest

from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    EncoderDecoderConfig,
    FormatConfig,
    TrainConfig,
)
from ift_jax.data.batches import BatchPlan, batch_arrays
from ift_jax.data.eval_batches import batches_of, eval_plan
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError
from tests.data.made_stores import example, make_mixture, make_store


def config(folder, **kwargs):
    defaults = {"max_length": 64, "inputs_length": 48, "targets_length": 40, "window": 50}
    return DataConfig(store_dir=str(folder), **(defaults | kwargs))


def reference_rows(plan, step, rows=slice(None)):
    """For each row its examples as (task, example) objects, from the plan's own answer."""
    counts, tasks, variants, ids = plan.examples(step, rows)
    at, result = 0, []
    for count in counts.tolist():
        result.append(
            [
                (int(t), plan.mixture.stores[t].variants[int(v)], int(i))
                for t, v, i in zip(
                    tasks[at : at + count],
                    variants[at : at + count],
                    ids[at : at + count],
                    strict=True,
                )
            ]
        )
        at += count
    return result


def slow_decoder(rows, length):
    names = ("tokens", "targets", "segment_ids", "positions")
    batch = {name: np.zeros((len(rows), length), np.int32) for name in names}
    batch["task_ids"] = np.full((len(rows), length), -1, np.int32)
    batch["loss_weights"] = np.zeros((len(rows), length), np.float32)
    batch["prefix_mask"] = np.zeros((len(rows), length), bool)
    for r, examples in enumerate(rows):
        at = 0
        for segment, (task, store, i) in enumerate(examples, 1):
            tokens, weights = store.tokens(i).tolist(), store.weights(i).tolist()
            for p, token in enumerate(tokens):
                batch["tokens"][r, at] = token
                if p + 1 < len(tokens):
                    batch["targets"][r, at] = tokens[p + 1]
                    batch["loss_weights"][r, at] = weights[p + 1]
                batch["segment_ids"][r, at] = segment
                batch["positions"][r, at] = p
                batch["task_ids"][r, at] = task
                batch["prefix_mask"][r, at] = not any(weights[: p + 1])
                at += 1
    return batch


def slow_encoder_decoder(rows, inputs_length, targets_length):
    batch = {}
    for side, length in (("encoder", inputs_length), ("decoder", targets_length)):
        for name in ("tokens", "segment_ids", "positions"):
            batch[f"{side}_{name}"] = np.zeros((len(rows), length), np.int32)
    batch["decoder_targets"] = np.zeros((len(rows), targets_length), np.int32)
    batch["decoder_loss_weights"] = np.zeros((len(rows), targets_length), np.float32)
    batch["decoder_task_ids"] = np.full((len(rows), targets_length), -1, np.int32)
    for r, examples in enumerate(rows):
        at = {"encoder": 0, "decoder": 0}
        for segment, (task, store, i) in enumerate(examples, 1):
            targets = store.tokens(i).tolist()
            for side, tokens in (
                ("encoder", store.encoder_tokens(i).tolist()),
                ("decoder", [0, *targets[:-1]]),
            ):
                for p, token in enumerate(tokens):
                    batch[f"{side}_tokens"][r, at[side]] = token
                    batch[f"{side}_segment_ids"][r, at[side]] = segment
                    batch[f"{side}_positions"][r, at[side]] = p
                    if side == "decoder":
                        batch["decoder_targets"][r, at[side]] = targets[p]
                        batch["decoder_loss_weights"][r, at[side]] = store.weights(i)[p]
                        batch["decoder_task_ids"][r, at[side]] = task
                    at[side] += 1
    return batch


def assert_equal(batch, reference):
    assert set(batch) == set(reference)
    for name, value in reference.items():
        np.testing.assert_array_equal(batch[name], value, err_msg=name)
        assert batch[name].dtype == value.dtype, name


@pytest.mark.parametrize("packed", [True, False])
def test_decoder_batches_equal_the_slow_reference(tmp_path, packed):
    mixture = make_mixture(tmp_path, [30, 12], max_length=64, shards=3)
    extreme = [example(1, prefix=0), example(64), example(2, prefix=1)]
    mixture.stores.append(make_store(tmp_path, "extreme", [extreme]))
    mixture = Mixture([*mixture.tasks, "extreme"], np.ones(3), mixture.stores, [[]] * 3)
    plan = BatchPlan(
        mixture, config(tmp_path, pack=packed), "decoder", 7, 0, epochs=2, bidirectional_prefix=True
    )
    kinds = Counter()
    for step in range(plan.n_steps):
        rows = reference_rows(plan, step)
        reference = slow_decoder(rows, 64) | {"row_ids": np.arange(7, dtype=np.int32)}
        assert_equal(plan.batch(step), reference)
        kinds.update(len(store.tokens(i)) for row in rows for _, store, i in row)
        kinds["empty"] += sum(not row for row in rows)
    assert kinds[1] and kinds[64] and (kinds["empty"] or packed)  # The extremes did occur.


@pytest.mark.parametrize("packed", [True, False])
def test_encoder_decoder_batches_equal_the_slow_reference(tmp_path, packed):
    mixture = make_mixture(tmp_path, [30, 12], max_length=20, encoder=30, shards=2)
    extreme = [example(1, 0, prefix=0), example(40, 0), example(1, 48, prefix=0), example(40, 48)]
    mixture.stores.append(make_store(tmp_path, "extreme", [extreme]))
    mixture = Mixture([*mixture.tasks, "extreme"], np.ones(3), mixture.stores, [[]] * 3)
    plan = BatchPlan(mixture, config(tmp_path, pack=packed), "encoder_decoder", 5, 3, epochs=2)
    together = 0
    for step in range(plan.n_steps):
        rows = reference_rows(plan, step)
        reference = slow_encoder_decoder(rows, 48, 40) | {"row_ids": np.arange(5, dtype=np.int32)}
        assert_equal(plan.batch(step), reference)
        without = [any(not len(s.encoder_tokens(i)) for _, s, i in row) for row in rows]
        together += sum(w and len(row) > 1 for w, row in zip(without, rows, strict=True))
    assert together or not packed  # Empty inputs did share rows with others.


@pytest.mark.parametrize("model", [DecoderConfig(), EncoderDecoderConfig()])
@pytest.mark.parametrize("prefix", [True, False])
def test_the_arrays_of_a_batch_are_known_without_data(tmp_path, model, prefix):
    mixture = make_mixture(tmp_path, [9, 12], encoder=30)
    run = Config(
        data=config(tmp_path),
        model=model,
        format=FormatConfig(bidirectional_prefix=prefix),
        train=TrainConfig(batch_size=6, steps=2),
    )
    batch = BatchPlan.from_config(run, mixture).batch(1)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == batch_arrays(run)


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_batch_depends_on_the_step_alone(tmp_path, architecture):
    mixture = make_mixture(tmp_path, [40, 25, 60], [1.0, 1.0, 3.0], encoder=30, variants=2)
    data = config(tmp_path)
    arguments = (mixture, data, architecture, 8, 5)
    plan = BatchPlan(*arguments, steps=40)
    in_order = [plan.batch(step) for step in range(40)]
    (tmp_path / "plans").rename(tmp_path / "away")  # Planned again, as on another machine.
    for step in (39, 0, 17, 18, 3):
        fresh = BatchPlan(*arguments, steps=40)
        assert_equal(fresh.batch(step), in_order[step])
        for processes in (1, 2, 4):
            each = 8 // processes
            parts = [fresh.batch(step, slice(p * each, (p + 1) * each)) for p in range(processes)]
            whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            assert_equal(whole, in_order[step])
    # Another seed is another order; a longer run begins the same.
    other = BatchPlan(mixture, data, architecture, 8, 6, steps=40)
    assert not np.array_equal(other.examples(0)[3], plan.examples(0)[3])
    assert_equal(BatchPlan(*arguments, steps=80).batch(39), in_order[39])


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_each_example_exactly_as_often_as_epochs(tmp_path, architecture, epochs):
    sizes = [33, 4, 120]
    mixture = make_mixture(tmp_path, sizes, encoder=20)
    plan = BatchPlan(mixture, config(tmp_path), architecture, 8, 1, epochs=epochs)
    counts = Counter()
    for step in range(plan.n_steps):
        _, tasks, _, ids = plan.examples(step)
        counts.update(zip(tasks.tolist(), ids.tolist(), strict=True))
    assert len(counts) == sum(sizes) and set(counts.values()) == {epochs}
    assert plan.n_examples == sum(sizes) * epochs
    assert plan.n_tokens == epochs * sum(int(s.lengths.sum()) for s in mixture.stores)
    assert plan.n_trained_tokens == epochs * sum(
        int(s.trained_tokens.sum()) for s in mixture.stores
    )
    assert plan.steps_per_epoch == plan.n_steps / epochs
    shares = plan.summary()["tasks"]
    assert [shares[name]["epochs"] for name in mixture.tasks] == [epochs] * 3


@pytest.mark.parametrize("steps", [4, 9, 30])
def test_what_a_run_reads_is_told_where_it_ends_inside_a_window(tmp_path, steps):
    mixture = make_mixture(tmp_path, [133, 240])
    plan = BatchPlan(mixture, config(tmp_path, window=100), "decoder", 8, 1, steps=steps)
    counts = Counter()
    n_tokens = 0
    for step in range(steps):
        _, tasks, _, ids = plan.examples(step)
        counts.update(tasks.tolist())
        for task, index in zip(tasks.tolist(), ids.tolist(), strict=True):
            n_tokens += int(mixture.stores[task].lengths[index])
    n_examples = sum(counts.values())
    assert plan.read.rows == steps * 8
    assert plan.read.examples == pytest.approx(n_examples, rel=0.15)
    assert plan.read.tokens == pytest.approx(n_tokens, rel=0.15)
    shares = plan.summary()["tasks"]
    for task, name in enumerate(mixture.tasks):
        epochs = counts[task] / [133, 240][task]
        assert shares[name]["epochs"] == pytest.approx(epochs, rel=0.4, abs=0.03)


def test_epoch_reads_the_variants_in_turn(tmp_path):
    mixture = make_mixture(tmp_path, [20], variants=2)
    plan = BatchPlan(mixture, config(tmp_path, window=20), "decoder", 1, 0, epochs=3)
    seen = []
    for step in range(plan.n_steps):
        _, _, variants, ids = plan.examples(step)
        seen += zip(variants.tolist(), ids.tolist(), strict=True)
    assert Counter(seen) == Counter({(0, i): 2 for i in range(20)} | {(1, i): 1 for i in range(20)})


def test_eval_is_finite_and_complete_whatever_the_rates(tmp_path):
    mixture = make_mixture(tmp_path, [5, 70, 31], [10.0, 0.0, 1.0], variants=2)
    seen = Counter()
    batches = list(batches_of(eval_plan(mixture, config(tmp_path), "decoder", 8)))
    for batch in batches:
        assert batch["tokens"].shape == (8, 64)
        for row in range(8):
            segments = batch["segment_ids"][row]
            for segment in range(1, segments.max() + 1):
                here = segments == segment
                seen[int(batch["task_ids"][row][here][0]), tuple(batch["tokens"][row][here])] += 1
    expected = Counter(
        (t, tuple(store.tokens(i)))
        for t, store in enumerate(mixture.stores)
        for i in range(len(store))
    )
    assert seen == expected
    last = batches[-1]
    empty = last["segment_ids"].max(axis=1) == 0
    for name, value in last.items():
        if name not in ("row_ids", "task_ids"):
            assert not value[empty].any()
    assert (last["task_ids"][empty] == -1).all()
    assert eval_plan(mixture, config(tmp_path), "decoder", 4, max_rows=10).n_steps == 3


def test_plan_is_cached_and_never_stale(tmp_path):
    mixture = make_mixture(tmp_path, [200])
    first = BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, steps=20)
    files = list((tmp_path / "plans").iterdir())
    assert len(files) == 1
    BatchPlan(mixture, config(tmp_path, processes=9), "decoder", 4, 0, steps=20)
    assert list((tmp_path / "plans").iterdir()) == files
    for other in ({"max_length": 80}, {"pack": False}, {"window": 70}):
        BatchPlan(mixture, config(tmp_path, **other), "decoder", 4, 0, steps=20)
    assert len(list((tmp_path / "plans").iterdir())) == 4
    files[0].write_bytes(b"cut off")
    again = BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, steps=20)
    assert again.n_rows == first.n_rows


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("packed", [True, False])
def test_planned_totals_are_those_of_the_rows(tmp_path, architecture, packed):
    # Equal rates show examples of the small task twice in some windows.
    mixture = make_mixture(tmp_path, [200, 21], [1, 1], encoder=30, variants=2)
    plan = BatchPlan(mixture, config(tmp_path, pack=packed), architecture, 4, 0, epochs=4)
    packer = plan._packer
    n_windows = plan.order.windows_before(4)
    totals = packer.totals(0, n_windows)
    np.testing.assert_array_equal(packer.all_totals(n_rows=None, n_windows=n_windows), totals)
    for window, (n_rows, *sums) in enumerate(totals.tolist()):
        first, examples = packer.window(window)
        ids = mixture.flat_ids(*examples)
        lengths = mixture.lengths[ids], mixture.encoder_lengths[ids], mixture.trained_tokens[ids]
        assert (n_rows, first[-1]) == (len(first) - 1, len(ids))
        assert sums == [len(ids), *(column.sum() for column in lengths)]
    # As many windows as hold some rows, and no more.
    needed = int(totals[:5, 0].sum())
    np.testing.assert_array_equal(packer.all_totals(n_rows=needed, n_windows=None), totals[:5])


def test_planning_places_no_example_where_none_comes_twice(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("an example was placed one by one")

    mixture = make_mixture(tmp_path, [200, 30])
    monkeypatch.setattr("ift_jax.data.packed_windows.pack", refuse)
    plan = BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, epochs=2)
    assert plan.n_examples == 2 * 230
    with pytest.raises(AssertionError, match="one by one"):
        plan.batch(0)


def test_a_late_step_plans_no_more_than_an_early_one(tmp_path):
    mixture = make_mixture(tmp_path, [300])
    BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, steps=2000)
    for step in (3, 1990):
        plan = BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, steps=2000)
        plan.batch(step)
        assert plan._packer.window.cache_info().misses <= 2


def test_misuse(tmp_path):
    mixture = make_mixture(tmp_path, [30])
    with pytest.raises(ValueError, match="one must be positive"):
        BatchPlan(mixture, config(tmp_path), "decoder", 4, 0)
    plan = BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, epochs=1)
    with pytest.raises(IndexError):
        plan.batch(plan.n_steps)
    with pytest.raises(ValueError, match="does not fit a row of 16"):
        BatchPlan(mixture, config(tmp_path, max_length=16), "decoder", 4, 0, epochs=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixture.tasks = []


def test_a_run_that_could_never_be_planned_is_refused(tmp_path):
    mixture = make_mixture(tmp_path, [5])
    for train, said in (
        (
            {"steps": 2**31 - 1, "batch_size": 8},
            "steps=2147483647 x batch_size=8 are 1.72e+10 rows",
        ),
        ({"epochs": 1e9}, "epochs=1e+09 are 5e+09 examples"),
    ):
        with pytest.raises(UserError, match=re.escape(f"config.train: {said}; expected at most")):
            BatchPlan.from_config(Config(train=TrainConfig(**train)), mixture)


def pair(rng, n_chosen, n_rejected):
    """A pair as one example of the store: the chosen side, and the rejected one behind it."""
    sides = [example(n, rng=rng, prefix=1) for n in (n_chosen, n_rejected)]
    return dataclasses.replace(
        sides[0],
        tokens=np.concatenate([side.tokens for side in sides]),
        weights=np.concatenate([side.weights for side in sides]),
        rejected_start=n_chosen,
    )


@pytest.mark.parametrize("pack", [True, False])
def test_both_sides_of_a_pair_are_neighbors_in_one_row(tmp_path, pack):
    rng = np.random.default_rng(0)
    made = [pair(rng, *rng.integers(2, 20, 2).tolist()) for _ in range(60)]
    stores = [make_store(tmp_path, "pairs-train-1", [made])]
    log_probs = rng.normal(size=(60, 2)).astype(np.float32)
    mixture = Mixture(["pairs"], np.ones(1), stores, [[]], log_probs)
    assert mixture.holds_pairs and stores[0].manifest["pairs"] == 60
    data = dataclasses.replace(config(tmp_path), pack=pack)
    plan = BatchPlan(mixture, data, "decoder", 4, 0, epochs=1.0)
    by_tokens = {tuple(each.tokens): i for i, each in enumerate(made)}
    seen = Counter()
    most = 0
    for step in range(plan.n_steps):
        batch = plan.batch(step)
        for row in range(4):
            ids = batch["segment_ids"][row]
            most = max(most, int(ids.max()))
            assert ids.max() % 2 == 0  # No side is alone.
            for first in range(1, ids.max(), 2):
                sides = [ids == first, ids == first + 1]
                i = by_tokens[tuple(np.concatenate([batch["tokens"][row][s] for s in sides]))]
                seen[i] += 1
                start = made[i].rejected_start
                expected = made[i].weights[:start], made[i].weights[start:]
                for here, weights, value in zip(sides, expected, log_probs[i], strict=True):
                    assert batch["positions"][row][here].tolist() == list(range(here.sum()))
                    got = batch["loss_weights"][row][here]
                    np.testing.assert_array_equal(got, [*weights[1:], 0])
                    references = batch["reference_log_probs"][row][here]
                    assert references[0] == value and not references[1:].any()
    assert seen == Counter(dict.fromkeys(range(60), 1))
    assert most > 2 if pack else most == 2
