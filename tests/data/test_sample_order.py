"""The sample order: shares, epochs, and what it may depend on."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_jax.data.randomness import permutation
from ift_jax.data.sample_order import SampleOrder


def order(sizes, rates=None, *, seed=0, window=100, epochs=None):
    names = [f"t{i}" for i in range(len(sizes))]
    return SampleOrder(sizes, sizes if rates is None else rates, seed, names, window, epochs)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=7),
    st.integers(1, 300),
    st.integers(0, 10**7),
    st.integers(0, 5),
)
def test_counts_per_window_and_in_total_are_within_one_of_the_rate(rates, window, first, seed):
    samples = order([11] * len(rates), rates, seed=seed, window=window)
    shares = np.array(rates) / np.sum(rates)
    for w in (first, first + 1):
        start, stop = samples.window_start(w), samples.window_start(w + 1)
        assert 0 < stop - start <= window
        tasks, _, _ = samples.window(w)
        counts = np.bincount(tasks, minlength=len(rates))
        assert np.all(np.abs(counts - float(stop - start) * shares) <= 1 + 1e-6)
        for task in range(len(rates)):
            first_visit, last_visit = samples.visits(task, w)
            assert last_visit - first_visit == counts[task]
            assert abs(last_visit - float(stop) * shares[task]) <= 1 + 1e-9 * last_visit
            # No visit is lost or doubled at a border, however far out.
            assert last_visit == samples.visits(task, w + 1)[0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1e3)), min_size=1, max_size=6),
    st.integers(1, 60),
    st.one_of(st.integers(0, 20), st.integers(0, 10**9)),
    st.booleans(),
)
def test_windows_together_are_those_one_by_one(tasks, window, first, by_size):
    sizes, rates = zip(*tasks, strict=True)
    # Rates by size, in phase with windows, are those where float64 is in doubt.
    rates = sizes if by_size or not any(rates) else rates
    samples = order(sizes, rates, window=window)
    visits, windows = samples.windows(first, first + 5)
    for w in range(5):
        here = windows == w
        for column, expected in zip(visits, samples.window(first + w), strict=True):
            np.testing.assert_array_equal(column[here], expected)
        exact = [np.subtract(*samples.visits(t, first + w)[::-1]) for t in range(len(sizes))]
        counts = np.bincount(visits.task_ids[here], minlength=len(sizes))
        np.testing.assert_array_equal(counts, exact)


def test_every_example_once_an_epoch_in_another_order():
    samples = order([7, 50, 200], [3.0, 1.0, 2.0], window=37)
    seen = {t: [] for t in range(3)}
    for w in range(180):  # At most 14 visits each, because the small task has 7 examples.
        tasks, ids, epochs = samples.window(w)
        for t, i, e in zip(tasks.tolist(), ids.tolist(), epochs.tolist(), strict=True):
            seen[t].append((e, i))
    for t, size in enumerate((7, 50, 200)):
        visits = seen[t]
        assert visits == sorted(visits, key=lambda visit: visit[0])  # Epoch after epoch.
        whole = [visits[k : k + size] for k in range(0, len(visits) - size, size)]
        assert len(whole) >= 2
        for epoch, chunk in enumerate(whole):
            assert {e for e, _ in chunk} == {epoch}
            assert sorted(i for _, i in chunk) == list(range(size))
        if size > 7:
            assert [i for _, i in whole[0]] != [i for _, i in whole[1]]


@pytest.mark.parametrize("window", [1, 13, 100, 10_000])
@pytest.mark.parametrize("epochs", [1.0, 3.0])
def test_proportional_rates_give_each_example_exactly_the_epochs(window, epochs):
    sizes = [1, 10, 333, 90]
    samples = order(sizes, window=window, epochs=epochs)
    counts = Counter()
    for w in range(samples.n_windows):
        tasks, ids, _ = samples.window(w)
        counts.update(zip(tasks.tolist(), ids.tolist(), strict=True))
    assert len(counts) == sum(sizes)
    assert set(counts.values()) == {int(epochs)}


def test_a_fraction_of_an_epoch_has_its_share_of_visits():
    samples = order([300, 700], window=64, epochs=1.5)
    per_task = np.zeros(2, int)
    for w in range(samples.n_windows):
        per_task += np.bincount(samples.window(w)[0], minlength=2)
    np.testing.assert_array_equal(per_task, [450, 1050])


def test_variants_of_different_sizes_are_read_in_turn():
    samples = order([[5, 3], [10, 10]], [5, 10], window=30)
    tasks, ids, epochs = (
        np.concatenate(x) for x in zip(*map(samples.window, range(8)), strict=True)
    )
    of_first = [(e, i) for t, i, e in zip(tasks, ids, epochs, strict=True) if t == 0]
    assert sorted(i for e, i in of_first if e == 0) == list(range(5))
    assert sorted(i for e, i in of_first if e == 1) == list(range(3))
    assert sorted(i for e, i in of_first if e == 2) == list(range(5))


def test_chi_square_of_a_long_run():
    # Windows are stratified, so the chi-square over tasks must be far *below* that of independent
    # draws; over the examples of one task it must look uniform wherever the run is cut.
    sizes, rates = [400, 90, 1000, 25], [0.5, 0.2, 0.25, 0.05]
    samples = order(sizes, rates, window=512)
    windows = [samples.window(w) for w in range(150)]
    tasks, ids, _ = (np.concatenate(x) for x in zip(*windows, strict=True))
    counts = np.bincount(tasks, minlength=4)
    expected = np.array(rates) * counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 0.1
    cut = tasks == 0
    seen = np.bincount(ids[cut], minlength=400)
    assert seen.max() - seen.min() <= 1  # Without replacement.
    # Where in its epoch an example comes is uniform: 10 bins, 9 degrees of freedom, p = 1e-4.
    place = np.flatnonzero(ids[cut] == 17) % 400
    assert len(place) == cut.sum() // 400 or len(place) == cut.sum() // 400 + 1
    first_half = np.concatenate([permutation(400, "x", e)[:40] for e in range(500)])
    bins = np.bincount(first_half // 40, minlength=10)
    assert ((bins - 2000) ** 2 / 2000).sum() < 33.7


def test_order_depends_on_seed_and_names_alone():
    a, b = order([50, 50], seed=1), order([50, 50], seed=2)
    assert not np.array_equal(a.window(3)[1], b.window(3)[1])
    np.testing.assert_array_equal(a.window(3)[1], order([50, 50], seed=1).window(3)[1])
    # A task keeps its own order when another one is inserted before it.
    late = SampleOrder([9, 50, 50], [0.0, 1, 1], 1, ["new", "t0", "t1"], 100)
    np.testing.assert_array_equal(a.window(3)[1], late.window(3)[1])
    np.testing.assert_array_equal(a.window(3)[0] + 1, late.window(3)[0])


def test_permutation_is_frozen():
    # The words of Philox and SHA-256 never change; a change here would change resumed runs.
    assert permutation(8, "epoch", 0, "task", 0).tolist() == FROZEN


FROZEN = [2, 3, 0, 5, 1, 7, 6, 4]


@pytest.mark.parametrize("rates", [[0.0, 0.0], [-1.0, 2.0]])
def test_rates_must_make_sense(rates):
    with pytest.raises(ValueError, match="rates"):
        order([3, 3], rates)
    with pytest.raises(ValueError, match="no example"):
        order([3, 0], [1, 1])
