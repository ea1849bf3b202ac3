"""Which examples are in which row of a window, and how many rows each window has."""

import contextlib
import functools
import io

import numpy as np

from ift_jax.config.schema import DataConfig
from ift_jax.data.mixture import Mixture
from ift_jax.data.packing import pack, pack_2d
from ift_jax.data.randomness import permutation
from ift_jax.data.sample_order import SampleOrder
from ift_jax.io.files import json_digest, write_atomically

_VERSION = 1


class Planner:
    """Packs any window of a sample order, statelessly."""

    def __init__(
        self, view: Mixture, data: DataConfig, architecture: str, seed: int, order: SampleOrder
    ):
        self._view, self._data, self._seed, self.order = view, data, seed, order
        # Tokens of a row: (max_length,) or (inputs_length, targets_length).
        self.capacities = tuple(length for length in data.row_lengths(architecture) if length)
        self.window = functools.lru_cache(maxsize=4)(self._window)

    def _sampled(self, window: int) -> tuple[np.ndarray, ...]:
        task_ids, example_ids, epochs = self.order.window(window)
        variants = epochs % self._view.stores[0].n_variants
        return task_ids, variants, example_ids, self._view.flat_ids(task_ids, variants, example_ids)

    def _rows_of(self, flat_ids: np.ndarray) -> tuple[np.ndarray, int]:
        """The row of each example, and how many rows there are."""
        lengths = self._view.lengths[flat_ids]
        if not self._data.pack:
            rows = np.arange(len(flat_ids), dtype=np.int32)
        elif len(self.capacities) == 2:
            rows = pack_2d(self._view.encoder_lengths[flat_ids], lengths, *self.capacities)
        else:
            rows = pack(lengths, *self.capacities)
        return rows, int(rows.max(initial=-1)) + 1

    def totals(self, window: int) -> list[int]:
        """Rows, examples, tokens, encoder tokens and trained tokens of a window."""
        *_, flat = self._sampled(window)
        columns = (self._view.lengths, self._view.encoder_lengths, self._view.trained_tokens)
        return [self._rows_of(flat)[1], len(flat), *(int(c[flat].sum()) for c in columns)]

    def rows(self, window: int, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Of some rows of a window: how many examples each has; their tasks, variants and ids."""
        first, *columns = self.window(window)
        examples = slice(first[start], first[stop])
        return np.diff(first[start : stop + 1]), *(column[examples] for column in columns)

    def _window(self, window: int) -> tuple[np.ndarray, ...]:
        """first, task_ids, variants, example_ids: row r holds examples first[r] to first[r + 1]."""
        *columns, flat = self._sampled(window)
        rows, n_rows = self._rows_of(flat)
        place = np.empty(n_rows, np.int64)
        place[permutation(n_rows, "rows", self._seed, window)] = np.arange(n_rows)
        rows = place[rows]
        by_row = np.argsort(rows, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))])
        return first, *(column[by_row] for column in columns)

    def all_totals(self, n_rows: int | None) -> np.ndarray:
        """`totals` of all windows until `n_rows` rows (None: until the order ends); int64[W, 5].

        Kept beside the stores: a run that is resumed plans nothing again.
        """
        key = [
            _VERSION,
            self._view.tasks,
            [store.path.name for store in self._view.stores],
            self._view.rates.tolist(),
            self.capacities,
            self._data.pack,
            self._data.window,
            self._seed,
            n_rows,
            str(self.order.end),
        ]
        path = self._view.stores[0].path.parent / "plans" / f"{json_digest(key)[:24]}.npy"
        with contextlib.suppress(OSError, ValueError):
            return np.load(path)
        totals: list[list[int]] = []
        planned, end = 0, self.order.n_windows
        while (end is None or len(totals) < end) and (n_rows is None or planned < n_rows):
            totals.append(self.totals(len(totals)))
            planned += totals[-1][0]
        result = np.array(totals, np.int64).reshape(-1, 5)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, result, allow_pickle=False)
        write_atomically(path, buffer.getvalue())
        return result
