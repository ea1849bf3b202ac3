"""Which examples are in which row of a window, and how many rows each window has."""

import dataclasses
import functools
import io
from pathlib import Path

import numpy as np

from ift_jax.config import DataConfig
from ift_jax.data.fingerprints import digest
from ift_jax.data.mixing import SampleOrder
from ift_jax.data.packing import pack, pack_2d
from ift_jax.data.randomness import permutation
from ift_jax.data.store import write_atomically
from ift_jax.data.view import MixtureView

_VERSION = 1


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """The rows of one window. Row r holds the examples first[r] to first[r + 1]."""

    first: np.ndarray  # int64[R + 1]
    task_ids: np.ndarray  # int32[n]
    variants: np.ndarray  # int32[n]
    example_ids: np.ndarray  # int64[n]

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, ...]:
        """Of some rows: examples in each, int64[stop - start]; task_ids, variants, example_ids."""
        a, b = self.first[start], self.first[stop]
        counts = np.diff(self.first[start : stop + 1])
        return counts, self.task_ids[a:b], self.variants[a:b], self.example_ids[a:b]


class Planner:
    """Packs any window of a sample order, statelessly."""

    def __init__(
        self, view: MixtureView, data: DataConfig, architecture: str, seed: int, order: SampleOrder
    ):
        self._view, self._data, self._seed, self.order = view, data, seed, order
        self._encoder_decoder = architecture == "encoder_decoder"
        self._variants = np.array([store.n_variants for store in view.stores], np.int32)
        self.window = functools.lru_cache(maxsize=4)(self._window)

    def capacities(self) -> tuple[int, ...]:
        """Tokens of a row: (row_length,) or (encoder_length, decoder_length)."""
        if self._encoder_decoder:
            return self._data.encoder_length, self._data.decoder_length
        return (self._data.row_length,)

    def _sampled(self, window: int) -> tuple[np.ndarray, ...]:
        task_ids, example_ids, epochs = self.order.window(window)
        variants = epochs % self._variants[task_ids]
        return task_ids, variants, example_ids, self._view.flat_ids(task_ids, variants, example_ids)

    def _rows_of(self, flat_ids: np.ndarray) -> np.ndarray:
        lengths = self._view.lengths[flat_ids]
        if not self._data.pack:
            return np.arange(len(flat_ids), dtype=np.int32)
        if self._encoder_decoder:
            return pack_2d(self._view.encoder_lengths[flat_ids], lengths, *self.capacities())
        return pack(lengths, *self.capacities())

    def totals(self, window: int) -> list[int]:
        """Rows, examples, tokens, encoder tokens and trained tokens of a window."""
        *_, flat = self._sampled(window)
        rows = self._rows_of(flat)
        view = self._view
        columns = (view.lengths, view.encoder_lengths, view.trained_tokens)
        n_rows = int(rows.max()) + 1 if len(rows) else 0
        return [n_rows, len(flat), *(int(column[flat].sum()) for column in columns)]

    def _window(self, window: int) -> WindowPlan:
        task_ids, variants, example_ids, flat = self._sampled(window)
        rows = self._rows_of(flat)
        n_rows = int(rows.max()) + 1 if len(rows) else 0
        place = np.empty(n_rows, np.int64)
        place[permutation(n_rows, "rows", self._seed, window)] = np.arange(n_rows)
        rows = place[rows]
        by_row = np.argsort(rows, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))])
        return WindowPlan(first, task_ids[by_row], variants[by_row], example_ids[by_row])

    def all_totals(self, n_rows: int | None) -> np.ndarray:
        """`totals` of all windows until `n_rows` rows (None: until the order ends); int64[W, 5].

        Kept in the store folder: a run that is resumed plans nothing again.
        """
        path = self._path(n_rows)
        try:
            return np.load(path)
        except (OSError, ValueError):
            pass
        totals: list[list[int]] = []
        planned = 0
        end = self.order.n_windows
        while (end is None or len(totals) < end) and (n_rows is None or planned < n_rows):
            totals.append(self.totals(len(totals)))
            planned += totals[-1][0]
        result = np.array(totals, np.int64).reshape(-1, 5)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _npy(result))
        return result

    def _path(self, n_rows: int | None) -> Path:
        key = [
            _VERSION, self._view.tasks, [str(store.path.name) for store in self._view.stores],
            self._view.rates.tolist(), self.capacities(), self._data.pack, self._data.window,
            self._seed, n_rows, str(self.order.end),
        ]  # fmt: skip
        return Path(self._data.store_dir) / "plans" / f"{digest(key)[:24]}.npy"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
