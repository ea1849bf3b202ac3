"""Packing whole examples into rows of a fixed capacity, by lengths alone.

The method is best-fit decreasing: the longest example first, each into the open row that it fills
best. The free capacities of the open rows are the set bits of one Python integer, so "the smallest
capacity of at least n" is the lowest set bit of `free >> n`.

The number of rows follows from how many examples there are of each length, so `count_rows` moves
all examples of one length at once.

Copies of an example never share a row, where it would count twice in one gradient. They have equal
lengths and would otherwise be placed one after another, often into the same row.
"""

import itertools
from collections.abc import Iterable

import numpy as np

_LEVELS = 16  # Classes of free capacity in the second dimension.
_TRIES = 4  # Free capacities that are tried in a class.


def pack(lengths_N: np.ndarray, capacity: int, copies_N: np.ndarray | None = None) -> np.ndarray:
    """Packs N examples into rows of `capacity` tokens.

    Args:
        lengths_N: int[N], the tokens of each example.
        capacity: Tokens per row.
        copies_N: int[N], equal positive numbers for the copies of one example, and 0 for an example
            that has none; None if no example has.

    Returns:
        int32[N], the row of each example, counted from 0.

    Raises:
        ValueError: an example is longer than a row.
    """
    check_fits(lengths_N, capacity)
    order = np.argsort(-np.asarray(lengths_N, np.int64), kind="stable")
    rows: list[int] = []
    open_rows: list[list[int]] = [[] for _ in range(capacity + 1)]  # By free capacity.
    free = 0  # Bit c is set iff a row with exactly c free tokens is open.
    n_rows = 0
    rows_of_copies: dict[int, list[int]] = {}
    lengths = np.asarray(lengths_N)[order].tolist()
    for length, copy in zip(lengths, _in_order(copies_N, order), strict=False):
        fitting = free >> length
        if copy:
            taken = rows_of_copies.setdefault(copy, [])
            while fitting:
                left = (fitting & -fitting).bit_length() - 1
                if open_rows[left + length][-1] not in taken:
                    break
                fitting &= fitting - 1  # To the next larger free capacity.
        if fitting:
            left = (fitting & -fitting).bit_length() - 1
            same = open_rows[left + length]
            row = same.pop()
            if not same:
                free ^= 1 << (left + length)
        else:
            row, left = n_rows, capacity - length
            n_rows += 1
        rows.append(row)
        if copy:
            taken.append(row)
        if left:
            open_rows[left].append(row)
            free |= 1 << left
    return _out_of_order(rows, order)


def count_rows(examples_of_length: np.ndarray, capacity: int) -> int:
    """The number of rows of `pack` for examples without copies, which need not exist one by one.

    The work grows with the number of different lengths, not of examples. Lengths come from the
    longest down. A row with less free capacity than that waits for a shorter length; the others lie
    on a stack. Both the rows that a shorter length brings and the row that an example was just put
    into have less room than all others on it, so the best fit is always on top.

    Args:
        examples_of_length: int[M], how many examples have 0, 1, 2, ... tokens; none has 0.
        capacity: Tokens per row, at least M - 1.
    """
    waiting = [0] * (capacity + 1)  # Rows by free capacity.
    fitting: list[tuple[int, int]] = []  # (free capacity, rows), the least free capacity on top.
    n_rows = 0
    least_looked_at = capacity // 2 + 1  # Nothing fits beside an example of this length.
    lengths = np.flatnonzero(examples_of_length)[::-1]
    for length, count in zip(lengths.tolist(), examples_of_length[lengths].tolist(), strict=True):
        for free in range(least_looked_at - 1, length - 1, -1):
            if waiting[free]:
                fitting.append((free, waiting[free]))
        least_looked_at = min(least_looked_at, length)
        left = count
        while left:
            if not fitting:
                opened = -(-left // (capacity // length))
                n_rows += opened
                fitting.append((capacity, opened))
            free, rows = fitting.pop()
            per_row = free // length
            filled = min(rows, left // per_row)  # Rows that take as many as fit.
            waiting[free - per_row * length] += filled
            left -= filled * per_row
            rows -= filled
            if rows:  # They have room for more than are left, which the first of them takes.
                if rows > 1 or not left:
                    fitting.append((free, rows - (left > 0)))
                if left:
                    fitting.append((free - left * length, 1))
                left = 0
    return n_rows


def pack_2d(
    encoder_N: np.ndarray,
    decoder_N: np.ndarray,
    encoder_capacity: int,
    decoder_capacity: int,
    copies_N: np.ndarray | None = None,
) -> np.ndarray:
    """Packs N examples with two lengths each into rows that have room for both sums.

    The example with the larger length relative to its capacity comes first. The dimension that
    needs more rows is searched exactly, with one bit set for each of 16 classes of free capacity
    in the other dimension. Of the at most 17 candidates, the row that is left fullest is taken.
    (A greedy search over all examples for each row measured the same fill at a fifth of the
    speed.)

    Args:
        encoder_N: int[N], the encoder tokens of each example.
        decoder_N: int[N], the decoder tokens of each example.
        encoder_capacity: Encoder tokens per row.
        decoder_capacity: Decoder tokens per row.
        copies_N: as for `pack`.

    Returns:
        int32[N], the row of each example, counted from 0.

    Raises:
        ValueError: an example is longer than a row.
    """
    check_fits(encoder_N, encoder_capacity)
    check_fits(decoder_N, decoder_capacity)
    first_N = np.asarray(encoder_N, np.int64)
    second_N = np.asarray(decoder_N, np.int64)
    cap1, cap2 = encoder_capacity, decoder_capacity
    if second_N.sum() * cap1 > first_N.sum() * cap2:
        first_N, second_N, cap1, cap2 = second_N, first_N, cap2, cap1
    order = np.argsort(-np.maximum(first_N * cap2, second_N * cap1), kind="stable")
    # (class, free capacity in dimension 1) -> (row, free capacity in dimension 2) of open rows.
    open_rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    free = [0] * (_LEVELS + 1)  # The bit set of free capacities in dimension 1 of each class.
    rows: list[int] = []
    n_rows = 0
    rows_of_copies: dict[int, list[int]] = {}
    needs = zip(first_N[order].tolist(), second_N[order].tolist(), strict=True)
    for (need1, need2), copy in zip(needs, _in_order(copies_N, order), strict=False):
        taken = rows_of_copies.setdefault(copy, []) if copy else []
        best, best_key = cap1 * cap2 * 4, None
        for level in range(need2 * _LEVELS // cap2, _LEVELS + 1):
            fitting = free[level] >> need1
            # Every row of a higher class has room; in the lowest one some do not.
            for _ in range(_TRIES):
                if not fitting:
                    break
                left1 = (fitting & -fitting).bit_length() - 1
                row, free2 = open_rows[level, left1 + need1][-1]
                left2 = free2 - need2
                if left2 >= 0 and row not in taken:
                    score = left1 * cap2 + left2 * cap1
                    if score < best:
                        best, best_key = score, (level, left1 + need1)
                    break
                fitting &= fitting - 1
        if best_key is None:
            row, free1, free2 = n_rows, cap1, cap2
            n_rows += 1
        else:
            level, free1 = best_key
            row, free2 = open_rows[best_key].pop()
            if not open_rows[best_key]:
                free[level] ^= 1 << free1
        left1, left2 = free1 - need1, free2 - need2
        rows.append(row)
        taken.append(row)
        level = left2 * _LEVELS // cap2
        open_rows.setdefault((level, left1), []).append((row, left2))
        free[level] |= 1 << left1
    return _out_of_order(rows, order)


def _in_order(copies_N: np.ndarray | None, order: np.ndarray) -> Iterable[int]:
    return itertools.repeat(0) if copies_N is None else copies_N[order].tolist()


def _out_of_order(rows: list[int], order: np.ndarray) -> np.ndarray:
    result = np.empty(len(order), np.int32)
    result[order] = rows
    return result


def check_fits(lengths_N: np.ndarray, capacity: int) -> None:
    """Raises a ValueError if an example is longer than a row."""
    longest = np.max(lengths_N, initial=0)
    if longest > capacity:
        raise ValueError(
            f"an example of {longest} tokens does not fit a row of {capacity}: "
            "the store was made for longer rows"
        )
