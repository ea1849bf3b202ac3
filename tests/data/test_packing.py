"""Packing: whole examples, full rows, never too full."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_jax.data.packing import count_rows, pack, pack_2d


def best_fit_decreasing(lengths, capacity):
    """The number of rows, by looking at every open row for every example."""
    free = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, left in enumerate(free) if left >= length]
        if fitting:
            free[min(fitting, key=lambda i: free[i])] -= length
        else:
            free.append(capacity - length)
    return len(free)


def check(rows, lengths, capacity):
    assert rows.dtype == np.int32 and rows.shape == (len(lengths),)
    sums = np.bincount(rows, weights=lengths, minlength=rows.max() + 1 if len(rows) else 0)
    assert len(rows) == 0 or sums.max() <= capacity
    assert set(rows.tolist()) == set(range(rows.max() + 1 if len(rows) else 0))  # No empty row.


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 70), st.data())
def test_as_few_rows_as_the_slow_reference(capacity, data):
    lengths = np.array(data.draw(st.lists(st.integers(1, capacity), max_size=80)), np.int32)
    rows = pack(lengths, capacity)
    check(rows, lengths, capacity)
    assert rows.max(initial=-1) + 1 == best_fit_decreasing(lengths.tolist(), capacity)
    assert count_rows(np.bincount(lengths), capacity) == rows.max(initial=-1) + 1


def test_counting_rows_takes_no_step_for_each_example():
    of_length = np.zeros(6, np.int64)
    of_length[[5, 3, 2]] = 10**12 + 1, 10**12, 2
    # A row holds 5 + 2 or 3 + 3 (+ 1 free) tokens; both twos fill rows that fives left open.
    assert count_rows(of_length, 7) == 10**12 + 1 + 10**12 // 2


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.data())
def test_two_dimensions_hold_both_sums(encoder_capacity, decoder_capacity, data):
    n = data.draw(st.integers(1, 60))

    def draw(most):
        lengths = st.lists(st.integers(0, most), min_size=n, max_size=n)
        return np.array(data.draw(lengths))

    encoder = draw(encoder_capacity)
    decoder = draw(decoder_capacity)
    rows = pack_2d(encoder, decoder, encoder_capacity, decoder_capacity)
    check(rows, encoder, encoder_capacity)
    check(rows, decoder, decoder_capacity)
    n_rows = rows.max() + 1
    needed = max(
        math.ceil(encoder.sum() / encoder_capacity), math.ceil(decoder.sum() / decoder_capacity)
    )
    assert needed <= n_rows
    # Two rows that are at most a quarter full in both dimensions would have become one row.
    sums_e = np.bincount(rows, weights=encoder, minlength=n_rows)
    sums_d = np.bincount(rows, weights=decoder, minlength=n_rows)
    light = (sums_e * 4 <= encoder_capacity) & (sums_d * 4 <= decoder_capacity)
    assert light.sum() <= 2


def test_two_dimensions_fill_like_one_if_the_other_is_never_full():
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    rows = pack_2d(lengths, np.ones(500, int), 128, 10_000)
    assert rows.max() + 1 <= best_fit_decreasing(lengths.tolist(), 128) * 1.02


def test_log_normal_lengths_fill_rows():
    lengths = np.clip(np.random.default_rng(0).lognormal(5.5, 0.8, 8192), 1, 2048).astype(int)
    rows = pack(lengths, 2048)
    assert lengths.sum() / ((rows.max() + 1) * 2048) >= 0.99


def test_equal_input_gives_equal_rows():
    lengths = np.random.default_rng(1).integers(1, 60, 1000)
    np.testing.assert_array_equal(pack(lengths, 64), pack(lengths.copy(), 64))


def test_an_example_longer_than_a_row_is_an_error():
    with pytest.raises(ValueError, match="65 tokens does not fit a row of 64"):
        pack(np.array([3, 65]), 64)
    with pytest.raises(ValueError, match="does not fit"):
        pack_2d(np.array([3]), np.array([9]), 8, 8)
