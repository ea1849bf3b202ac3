"""Rows of whole examples as arrays, without a loop over tokens.

A row is its examples one after the other, then zeros. All rows of a batch are laid out in one
flat array, as a sequence of runs: each run is an example, or a row's padding.
"""

from collections.abc import Sequence

import numpy as np


class RowLayout:
    """Where the examples of a batch go.

    They have `lengths_N` tokens (zero too), row after row, `counts_B` in each row of `capacity`.
    """

    def __init__(self, lengths_N: np.ndarray, counts_B: np.ndarray, capacity: int):
        n, b = len(lengths_N), len(counts_B)
        self.shape = (b, capacity)
        row_N = np.repeat(np.arange(b), counts_B)
        first_B = np.cumsum(counts_B) - counts_B
        used_B = np.bincount(row_N, weights=lengths_N, minlength=b).astype(np.int64)
        # Runs: the examples, with each row's padding put behind its last example.
        self._examples = np.arange(n) + row_N  # Run number of each example.
        self._padding = np.arange(b) + first_B + counts_B
        self._run_lengths = np.zeros(n + b, np.int64)
        self._run_lengths[self._examples] = lengths_N
        self._run_lengths[self._padding] = capacity - used_B
        ends = np.cumsum(self._run_lengths)
        self.starts_N = (ends - self._run_lengths)[self._examples]  # Place in the flat array.
        self.lengths_N = lengths_N
        self.segment_N = np.arange(n) - first_B[row_N] + 1

    def concatenate(self, values: Sequence[np.ndarray], dtype: type) -> np.ndarray:
        """Lays out one array for each example; dtype[B, L], zero where there is none."""
        runs: list[np.ndarray] = [np.zeros(0, dtype)] * len(self._run_lengths)
        for run, value in zip(self._examples.tolist(), values, strict=True):
            runs[run] = value
        zeros: np.ndarray = np.zeros(self.shape[1], dtype)
        for run in self._padding.tolist():
            runs[run] = zeros[: self._run_lengths[run]]
        return np.concatenate([zeros[:0], *runs], dtype=dtype).reshape(self.shape)

    def repeat(self, value_N: np.ndarray, padding: int) -> np.ndarray:
        """Gives every token its example's number; int32[B, L], `padding` where there is none."""
        value = np.full(len(self._run_lengths), padding, np.int32)
        value[self._examples] = value_N
        return np.repeat(value, self._run_lengths).reshape(self.shape)

    def places(self) -> dict[str, np.ndarray]:
        """int32[B, L] each, 0 in padding: `positions`, from 0 in each example, and `segment_ids`.

        These are 1, 2, ... in the order of the examples of a row, empty ones counted too.
        """
        count = np.arange(self.shape[1], dtype=np.int32)
        positions = [count[:length] for length in self.lengths_N.tolist()]
        segment_ids = self.repeat(self.segment_N, 0)
        return {"segment_ids": segment_ids, "positions": self.concatenate(positions, np.int32)}

    def shift_left(self, x_BxL: np.ndarray) -> np.ndarray:
        """The next token's value inside an example, 0 at its last token."""
        shifted, some = np.zeros_like(x_BxL), self.lengths_N > 0
        shifted[:, :-1] = x_BxL[:, 1:]
        shifted.reshape(-1)[(self.starts_N + self.lengths_N - 1)[some]] = 0
        return shifted

    def shift_right(self, x_BxL: np.ndarray) -> np.ndarray:
        """The token before inside an example, 0 (T5's start id) at its first, 0 in padding."""
        shifted, some = np.zeros_like(x_BxL), self.lengths_N > 0
        shifted[:, 1:] = x_BxL[:, :-1]
        shifted.reshape(-1)[self.starts_N[some]] = 0
        # Else the last token of a row would be seen in its padding.
        behind = (self.starts_N + self.lengths_N)[some]
        shifted.reshape(-1)[behind[behind % self.shape[1] != 0]] = 0
        return shifted
