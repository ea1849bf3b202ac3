"""Which examples are in which row of a window, and how many rows each window has."""

import contextlib
import functools
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ift_jax.config.schema import DataConfig
from ift_jax.data.mixture import Mixture
from ift_jax.data.packing import pack, pack_2d
from ift_jax.data.randomness import permutation
from ift_jax.data.sample_order import SampleOrder, Visits
from ift_jax.io.files import json_digest
from ift_jax.io.side_folder import find_side_file, write_side_file

_VERSION = 3  # Version of the kept totals; a part of their file's name.


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

    def totals(self, window: int) -> WindowTotals:
        """Counts what a window holds, without shuffling its rows."""
        visits = self.order.window(window)
        flat_ids = self._mixture.flat_ids(*self._sampled(visits))
        _, n_rows = self._pack(visits, flat_ids)
        return WindowTotals(
            rows=n_rows,
            examples=len(flat_ids),
            tokens=int(self._mixture.lengths[flat_ids].sum()),
            encoder_tokens=int(self._mixture.encoder_lengths[flat_ids].sum()),
            trained_tokens=int(self._mixture.trained_tokens[flat_ids].sum()),
        )

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
        totals: list[WindowTotals] = []
        planned_rows = 0
        while n_windows is None or len(totals) < n_windows:
            if n_rows is not None and planned_rows >= n_rows:
                break
            totals.append(self.totals(len(totals)))
            planned_rows += totals[-1].rows
        result = np.array(totals, np.int64).reshape(-1, len(WindowTotals._fields))
        buffer = io.BytesIO()
        np.save(buffer, result, allow_pickle=False)
        content = buffer.getvalue()
        write_side_file(store_dir, name, hashlib.sha256(content).digest() + content)
        return result

    def _totals_name(self, n_rows: int | None, n_windows: int | None) -> str:
        """The name of the file for `all_totals`, after everything that determines them."""
        stores = self._mixture.stores
        key = [
            _VERSION,
            self._mixture.tasks,
            [store.path.name for store in stores],
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

    def _pack(self, visits: Visits, flat_ids: np.ndarray) -> tuple[np.ndarray, int]:
        """The row of each example (int32[n]), and the number of rows."""
        lengths = self._mixture.lengths[flat_ids]
        if not self._data.pack:
            rows = np.arange(len(flat_ids), dtype=np.int32)
        elif len(self.capacities) == 2:
            encoder_lengths = self._mixture.encoder_lengths[flat_ids]
            rows = pack_2d(encoder_lengths, lengths, *self.capacities, _copies(visits))
        else:
            rows = pack(lengths, self.capacities[0], _copies(visits))
        return rows, int(rows.max(initial=-1)) + 1

    def _window(self, window: int) -> PackedWindow:
        """Packs a window and shuffles its rows by the seed."""
        visits = self.order.window(window)
        examples = self._sampled(visits)
        rows, n_rows = self._pack(visits, self._mixture.flat_ids(*examples))
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


def _copies(visits: Visits) -> np.ndarray | None:
    """Numbers the examples that a window visits more than once, whatever their variants.

    Args:
        visits: N visits, task after task and epoch after epoch.

    Returns:
        int64[n], equal positive numbers for the visits of an example that is visited again, and 0
        for all others; None if no example is.
    """
    task_ids, example_ids, epochs = visits
    # Only a task that is visited in several epochs can repeat an example; mostly few tasks are.
    epoch_ends = (task_ids[1:] == task_ids[:-1]) & (epochs[1:] != epochs[:-1])
    if not epoch_ends.any():
        return None
    repeating = np.zeros(int(task_ids[-1]) + 1, bool)
    repeating[task_ids[1:][epoch_ends]] = True
    candidates = np.flatnonzero(repeating[task_ids])

    # A number for each example of each task. Sorting brings equal numbers together.
    ids = example_ids[candidates]
    keys = task_ids[candidates].astype(np.int64) * (int(ids.max()) + 1) + ids
    order = np.argsort(keys, kind="stable")
    same = np.diff(keys[order]) == 0
    if not same.any():
        return None
    starts = np.concatenate([[True], ~same])
    has_copy = ~starts | np.concatenate([same, [False]])
    copies = np.zeros(len(task_ids), np.int64)
    copies[candidates[order]] = np.cumsum(starts) * has_copy
    return copies
