"""Which examples are in which row of a window, and how many rows each window has."""

import contextlib
import functools
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ift_jax.config.schema import DataConfig
from ift_jax.data.mixture import Mixture
from ift_jax.data.packing import check_fits, count_rows, pack, pack_2d
from ift_jax.data.randomness import permutation
from ift_jax.data.sample_order import SampleOrder, Visits
from ift_jax.io.files import json_digest
from ift_jax.io.side_folder import find_side_file, write_side_file

_VERSION = 3  # Version of the kept totals; a part of their file's name.
_TOGETHER = 2**19  # Examples (or lengths, if there are more) that are planned at once.


class WindowTotals(NamedTuple):
    """What one window holds."""

    rows: int
    examples: int
    tokens: int
    encoder_tokens: int
    trained_tokens: int


class Examples(NamedTuple):
    """n examples by name."""

    task_ids: np.ndarray  # int32[n].
    variants: np.ndarray  # int32[n].
    example_ids: np.ndarray  # int64[n], the place of each example in its variant.

    def take(self, indices: np.ndarray | slice) -> "Examples":
        """Some of the examples, or all in another order."""
        return Examples(*(column[indices] for column in self))


class RowExamples(NamedTuple):
    """The n examples of some rows, row after row."""

    counts: np.ndarray  # int64[rows], examples in each row; 0 for an empty row.
    task_ids: np.ndarray  # int32[n].
    variants: np.ndarray  # int32[n].
    example_ids: np.ndarray  # int64[n].


class PackedWindow(NamedTuple):
    """All rows of a window: row r holds examples first[r] to first[r + 1]."""

    first: np.ndarray  # int64[rows + 1].
    examples: Examples


class WindowPacker:
    """Packs any window of a sample order, statelessly.

    Attributes:
        order: The sample order.
        capacities: Tokens per row: (max_length,) or (inputs_length, targets_length).
    """

    def __init__(
        self, mixture: Mixture, data: DataConfig, architecture: str, seed: int, order: SampleOrder
    ):
        self._mixture = mixture
        self._data = data
        self._seed = seed
        self.order = order
        self.capacities = tuple(length for length in data.row_lengths(architecture) if length)
        self.window = functools.lru_cache(maxsize=4)(self._window)

    def totals(self, first: int, stop: int) -> np.ndarray:
        """Counts what the windows from `first` to `stop` hold, without making their rows.

        Returns:
            int64[stop - first, 5], the fields of `WindowTotals`.
        """
        visits, window_N = self.order.windows(first, stop)
        flat_ids = self._mixture.flat_ids(*self._sampled(visits))
        examples_W = np.bincount(window_N, minlength=stop - first)

        def sums(of_example: np.ndarray) -> np.ndarray:
            # float64 holds every sum of tokens exactly.
            tokens_W = np.bincount(window_N, of_example[flat_ids], minlength=stop - first)
            return tokens_W.astype(np.int64)

        columns = [
            self._count_rows(visits, flat_ids, window_N, examples_W),
            examples_W,
            sums(self._mixture.lengths),
            sums(self._mixture.encoder_lengths),
            sums(self._mixture.trained_tokens),
        ]
        return np.stack(columns, axis=1)

    def rows(self, window: int, start: int, stop: int) -> RowExamples:
        """The examples of rows `start` to `stop` of a window."""
        first, examples = self.window(window)
        counts = np.diff(first[start : stop + 1])
        return RowExamples(counts, *examples.take(slice(first[start], first[stop])))

    def all_totals(self, *, n_rows: int | None, n_windows: int | None) -> np.ndarray:
        """The totals of the first windows: `n_windows`, or as many as hold `n_rows` rows.

        They are kept in a file beside the stores, so that a resumed run need not plan again.

        Args:
            n_rows: rows that are needed, if not None.
            n_windows: windows that are needed, if not None.

        Returns:
            int64[windows, 5], the fields of `WindowTotals`.
        """
        store_dir = self._mixture.stores[0].path.parent
        name = self._totals_name(n_rows, n_windows)
        if (kept := _read_totals(find_side_file(store_dir, name))) is not None:
            return kept
        result = np.concatenate(list(self._planned(n_rows, n_windows)))
        buffer = io.BytesIO()
        np.save(buffer, result, allow_pickle=False)
        content = buffer.getvalue()
        write_side_file(store_dir, name, hashlib.sha256(content).digest() + content)
        return result

    def _planned(self, n_rows: int | None, n_windows: int | None) -> Iterator[np.ndarray]:
        """Yields the totals of the first windows, some windows at a time; see `all_totals`."""
        yield np.zeros((0, len(WindowTotals._fields)), np.int64)
        most = max(_TOGETHER // max(self._data.window, self.capacities[-1]), 1)
        window = planned_rows = 0
        while n_windows is None or window < n_windows:
            if n_rows is None:
                count = most
            elif planned_rows < n_rows:
                # As many as are needed if they are like those before.
                count = -(-(n_rows - planned_rows) * window // max(planned_rows, 1))
            else:
                break
            count = min(max(count, 1), most)
            if n_windows is not None:
                count = min(count, n_windows - window)
            totals_Wx5 = self.totals(window, window + count)
            if n_rows is not None:
                rows_before = planned_rows + np.cumsum(totals_Wx5[:, 0]) - totals_Wx5[:, 0]
                totals_Wx5 = totals_Wx5[rows_before < n_rows]
            yield totals_Wx5
            window += count
            planned_rows += int(totals_Wx5[:, 0].sum())

    def _totals_name(self, n_rows: int | None, n_windows: int | None) -> str:
        """The name of the file for `all_totals`, after everything that determines them."""
        stores = self._mixture.stores
        key = [
            _VERSION,
            self._mixture.tasks,
            [store.path.name for store in stores],
            self._mixture.sizes,  # With the seed, they tell which part of a store is read.
            self._mixture.rates.tolist(),
            self.capacities,
            self._data.pack,
            self._data.window,
            self._seed,
            n_rows,
            n_windows,
        ]
        return f"plans/{json_digest(key)[:24]}"

    def _sampled(self, visits: Visits) -> Examples:
        """The examples that are visited."""
        variants = visits.epochs % self._mixture.stores[0].n_variants
        return Examples(visits.task_ids, variants, visits.example_ids)

    def _count_rows(
        self, visits: Visits, flat_ids: np.ndarray, window_N: np.ndarray, examples_W: np.ndarray
    ) -> np.ndarray:
        """int64[W]: the rows of each window."""
        if not self._data.pack:
            return examples_W
        copies = _copies(visits, window_N)
        if len(self.capacities) == 2:
            one_by_one = np.ones(len(examples_W), bool)
        else:
            one_by_one = np.zeros(len(examples_W), bool)
            if copies is not None:
                one_by_one[window_N[copies > 0]] = True
        rows_W = np.zeros(len(examples_W), np.int64)

        # Windows without copies, of examples with one length: by lengths alone.
        if not one_by_one.all():
            capacity = self.capacities[0]
            lengths = self._mixture.lengths[flat_ids]
            check_fits(lengths, capacity)
            keys = window_N * (capacity + 1) + lengths
            by_length = np.bincount(keys, minlength=len(rows_W) * (capacity + 1))
            for window, of_window in enumerate(by_length.reshape(len(rows_W), -1)):
                if not one_by_one[window]:
                    rows_W[window] = count_rows(of_window, capacity)

        if one_by_one.any():
            by_window = np.split(np.argsort(window_N, kind="stable"), np.cumsum(examples_W)[:-1])
            for window in np.flatnonzero(one_by_one).tolist():
                here = by_window[window]
                copies_here = None if copies is None else copies[here]
                rows_W[window] = self._pack(flat_ids[here], copies_here).max(initial=-1) + 1
        return rows_W

    def _pack(self, flat_ids: np.ndarray, copies: np.ndarray | None) -> np.ndarray:
        """The row of each example; int32[n]."""
        lengths = self._mixture.lengths[flat_ids]
        if not self._data.pack:
            return np.arange(len(flat_ids), dtype=np.int32)
        if len(self.capacities) == 2:
            return pack_2d(
                self._mixture.encoder_lengths[flat_ids], lengths, *self.capacities, copies
            )
        return pack(lengths, self.capacities[0], copies)

    def _window(self, window: int) -> PackedWindow:
        """Packs a window and shuffles its rows by the seed."""
        visits, window_N = self.order.windows(window, window + 1)
        examples = self._sampled(visits)
        rows = self._pack(self._mixture.flat_ids(*examples), _copies(visits, window_N))
        n_rows = int(rows.max(initial=-1)) + 1
        shuffled = np.empty(n_rows, np.int64)
        shuffled[permutation(n_rows, "rows", self._seed, window)] = np.arange(n_rows)
        rows = shuffled[rows]
        by_row = np.argsort(rows, kind="stable")
        counts = np.bincount(rows, minlength=n_rows)
        first = np.concatenate([[0], np.cumsum(counts)])
        return PackedWindow(first, examples.take(by_row))


def _read_totals(path: Path | None) -> np.ndarray | None:
    """The totals in a file, after the hash of their bytes; None if it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        content = path.read_bytes() if path else b""
        if content and hashlib.sha256(content[32:]).digest() == content[:32]:
            return np.load(io.BytesIO(content[32:]))
    return None


def _copies(visits: Visits, window_N: np.ndarray) -> np.ndarray | None:
    """Numbers the examples that a window visits more than once, whatever their variants.

    Args:
        visits: N visits, task after task, window after window, and epoch after epoch.
        window_N: int64[N], the window of each visit.

    Returns:
        int64[n], equal positive numbers for the visits of an example that its window visits again,
        and 0 for all others; None if no example is.
    """
    task_ids, example_ids, epochs = visits
    # Only a task that a window visits in several epochs can repeat an example; mostly few are.
    same_run = (task_ids[1:] == task_ids[:-1]) & (window_N[1:] == window_N[:-1])
    epoch_ends = np.flatnonzero(same_run & (epochs[1:] != epochs[:-1]))
    if not epoch_ends.size:
        return None
    n_tasks = int(task_ids[-1]) + 1
    run_N = window_N * n_tasks + task_ids
    repeating = np.zeros(int(window_N.max()) * n_tasks + n_tasks, bool)
    repeating[run_N[epoch_ends]] = True
    candidates = np.flatnonzero(repeating[run_N])

    # A number for each example of each run. Sorting brings equal numbers together.
    ids = example_ids[candidates]
    keys = run_N[candidates] * (int(ids.max()) + 1) + ids
    order = np.argsort(keys, kind="stable")
    same = np.diff(keys[order]) == 0
    if not same.any():
        return None
    starts = np.concatenate([[True], ~same])
    has_copy = ~starts | np.concatenate([same, [False]])
    copies = np.zeros(len(task_ids), np.int64)
    copies[candidates[order]] = np.cumsum(starts) * has_copy
    return copies
