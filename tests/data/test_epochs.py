"""Epochs hold at every step of a run: without replacement, and whatever the run's length."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_jax.config.schema import DataConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.data.packing import pack, pack_2d
from tests.data.made_stores import example, make_mixture, make_store


def config(folder, **kwargs):
    defaults = {"max_length": 64, "inputs_length": 48, "targets_length": 64, "window": 8192}
    return DataConfig(store_dir=str(folder), **(defaults | kwargs))


def rows_of_step(plan, step):
    """The (task, variant, example) triples of each row of a step, and empty rows as empty lists."""
    counts, *columns = plan.examples(step)
    triples = list(zip(*(column.tolist() for column in columns), strict=True))
    stops = np.cumsum(counts).tolist()
    return [
        triples[stop - count : stop] for count, stop in zip(counts.tolist(), stops, strict=True)
    ]


def check_every_step(plan, *, together):
    """Walks through a run and checks, after every step, what epochs promise.

    Args:
        plan: the run.
        together: whether all tasks finish their epochs at the same time.
    """
    sizes = [of_variants[0] for of_variants in plan.mixture.sizes]
    n_variants = len(plan.mixture.sizes[0])
    seen = [np.zeros(size, int) for size in sizes]
    reads: Counter[tuple[int, int, int]] = Counter()
    for step in range(plan.n_steps):
        for row in rows_of_step(plan, step):
            assert len({(task, i) for task, _, i in row}) == len(row), "an example twice in a row"
            for task, variant, i in row:
                # Epoch e reads variant e mod V. If the tasks do not finish together, the rows of
                # two epochs of a task may be shuffled together.
                n_epochs = seen[task][i] + (1 if together else 2)
                reads[task, i, variant] += 1
                assert reads[task, i, variant] <= len(range(variant, n_epochs, n_variants))
                seen[task][i] += 1
            # No example comes a third time before each has come once, and so on in later epochs;
            # if the tasks finish together, none comes a second time before each has come once.
            for of_task, rate in zip(seen, plan.mixture.rates, strict=True):
                if rate:
                    assert of_task.max() - of_task.min() <= (1 if together else 2)
    return seen


@st.composite
def runs(draw):
    """Stores' sizes, rates, and settings of a run."""
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=4))
    rates = draw(
        st.none() | st.lists(st.floats(0.05, 4.0), min_size=len(sizes), max_size=len(sizes))
    )
    return {
        "sizes": sizes,
        "rates": rates,
        "variants": draw(st.integers(1, 3)),
        "architecture": draw(st.sampled_from(["decoder", "encoder_decoder"])),
        "pack": draw(st.booleans()),
        "window": draw(st.sampled_from([1, 7, 30, 8192])),
        "row_length": draw(st.sampled_from([12, 40, 200])),
        "batch_size": draw(st.integers(1, 6)),
        "seed": draw(st.integers(0, 3)),
        "length": draw(
            st.sampled_from([{"epochs": 1.06}, {"epochs": 3.0}, {"epochs": 4.5}, {"steps": 40}])
        ),
    }


@settings(max_examples=60)
@given(runs())
def test_epochs_of_random_mixtures_after_every_step(run):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mixture = make_mixture(
            folder,
            run["sizes"],
            run["rates"],
            max_length=12,
            encoder=12,
            variants=run["variants"],
            seed=run["seed"],
        )
        lengths = dict.fromkeys(
            ("max_length", "inputs_length", "targets_length"), run["row_length"]
        )
        data = config(folder, pack=run["pack"], window=run["window"], **lengths)
        arguments = (mixture, data, run["architecture"], run["batch_size"], run["seed"])
        plan = BatchPlan(*arguments, **run["length"])
        together = run["rates"] is None or len(run["sizes"]) == 1
        seen = check_every_step(plan, together=together)
        epochs = run["length"].get("epochs")
        if epochs and together:
            assert all(of_task.min() >= int(epochs) for of_task in seen)
            if epochs == int(epochs):
                assert all(of_task.max() == epochs for of_task in seen)
        # A longer run begins with the same batches.
        field, value = next(iter(run["length"].items()))
        longer = BatchPlan(*arguments, **{field: value * 2 + 1})
        assert longer.n_steps > plan.n_steps
        for step in range(plan.n_steps):
            assert rows_of_step(longer, step) == rows_of_step(plan, step)


def test_a_little_more_than_an_epoch_sees_each_example_once_or_twice(tmp_path):
    mixture = make_mixture(tmp_path, [570])
    plan = BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, epochs=1.06)
    (seen,) = check_every_step(plan, together=True)
    counts = Counter(seen.tolist())
    assert set(counts) == {1, 2}
    assert counts[2] == pytest.approx(0.06 * 570, abs=16)  # Whole batches of 4 rows.


def test_each_epoch_of_a_small_data_set_ends_with_a_batch(tmp_path):
    mixture = make_mixture(tmp_path, [1000])
    plan = BatchPlan(mixture, config(tmp_path), "decoder", 8, 0, epochs=3)
    assert plan.n_steps % 3 == 0 and plan.steps_per_epoch == pytest.approx(plan.n_steps / 3, abs=1)
    seen = np.zeros(1000, int)
    at_end_of_epoch = []
    for step in range(plan.n_steps):
        np.add.at(seen, plan.examples(step).example_ids, 1)
        if len(set(seen)) == 1:
            at_end_of_epoch.append(int(seen[0]))
    assert at_end_of_epoch == [1, 2, 3]


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("first", [0.3, 1, 1.5])
def test_a_finished_run_with_more_epochs_goes_on_where_it_stopped(tmp_path, architecture, first):
    mixture = make_mixture(tmp_path, [700, 300], encoder=30)
    arguments = (mixture, config(tmp_path, window=512), architecture, 8, 0)
    short = BatchPlan(*arguments, epochs=first)
    longer = BatchPlan(*arguments, epochs=2)
    seen = Counter()
    for plan, steps in ((short, range(short.n_steps)), (longer, range(short.n_steps, 10**9))):
        for step in steps:
            if step == plan.n_steps:
                break
            seen.update(triple for row in rows_of_step(plan, step) for triple in row)
    assert len(seen) == 1000 and set(seen.values()) == {2}


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_whether_steps_and_epochs_give_the_same_batches_is_known(
    tmp_path, architecture, batch_size
):
    mixture = make_mixture(tmp_path, [70, 30], encoder=30)
    arguments = (mixture, config(tmp_path, window=32), architecture, batch_size, 0)
    of_epochs = BatchPlan(*arguments, epochs=3)
    of_steps = BatchPlan(*arguments, steps=of_epochs.n_steps)
    differ = [
        rows_of_step(of_epochs, step) != rows_of_step(of_steps, step)
        for step in range(of_steps.n_steps)
    ]
    assert any(differ) == (batch_size > 1)  # Rows one by one leave nothing to fill up.
    for n_steps in range(of_steps.n_steps + 1):
        for plan in (of_epochs, of_steps):
            assert plan.depends_on_unit(n_steps) == any(differ[:n_steps]), n_steps


def test_a_small_task_in_a_large_mixture_is_seen_evenly(tmp_path):
    mixture = make_mixture(tmp_path, [10, 2000], [1.0, 3.0])
    plan = BatchPlan(mixture, config(tmp_path), "decoder", 8, 0, steps=150)
    seen = check_every_step(plan, together=False)
    assert seen[0].min() > 5
    assert seen[0].sum() / sum(of_task.sum() for of_task in seen) == pytest.approx(0.25, abs=0.01)


def test_variants_of_different_sizes_are_each_read_whole(tmp_path):
    variants = [[example(int(n)) for n in np.arange(size) % 7 + 1] for size in (30, 21)]
    store = make_store(tmp_path, "uneven", variants)
    mixture = Mixture(["uneven"], np.ones(1), [store], [[]])
    plan = BatchPlan(mixture, config(tmp_path), "decoder", 4, 0, epochs=2)
    seen = Counter(
        (variant, i)
        for step in range(plan.n_steps)
        for row in rows_of_step(plan, step)
        for _, variant, i in row
    )
    assert seen == Counter([(0, i) for i in range(30)] + [(1, i) for i in range(21)])


def test_packing_keeps_copies_of_an_example_apart():
    lengths = np.array([5, 5, 5, 3, 3, 2, 2])
    copies = np.array([1, 1, 1, 2, 2, 0, 0])
    for rows in (
        pack(lengths, 64, copies),
        pack_2d(lengths, lengths[::-1], 64, 64, copies),
    ):
        assert len(set(rows[:3].tolist())) == 3 and rows[3] != rows[4]
        assert rows.max() == 2  # Everything else shares those rows.
