"""Rows of whole examples as arrays, without a loop over tokens.

A row holds its examples one after another, then zeros. All rows of a batch are laid out in one
flat array as a sequence of runs; each run is an example, or the padding of a row.
"""

from collections.abc import Sequence

import numpy as np


class RowLayout:
    """Where the N examples of a batch of B rows go.

    Attributes:
        shape: (B, L), rows and tokens per row.
        lengths_N: Int[N], the tokens of each example; some may have none.
        starts_N: int64[N], the start of each example in the flattened rows.
        segment_N: int64[N], the number of each example within its row, from 1.
    """

    def __init__(self, lengths_N: np.ndarray, counts_B: np.ndarray, capacity: int):
        """Lays out examples.

        Args:
            lengths_N: Int[N], the tokens of each example, row after row.
            counts_B: Int[B], the number of examples in each row.
            capacity: L, tokens per row.
        """
        n_examples = len(lengths_N)
        n_rows = len(counts_B)
        self.shape = (n_rows, capacity)
        self.lengths_N = lengths_N
        row_N = np.repeat(np.arange(n_rows), counts_B)
        first_B = np.cumsum(counts_B) - counts_B
        used_B = np.bincount(row_N, weights=lengths_N, minlength=n_rows).astype(np.int64)
        self.segment_N = np.arange(n_examples) - first_B[row_N] + 1
        # The run of each example and of each row's padding, which comes after its last example.
        self._example_runs = np.arange(n_examples) + row_N
        self._padding_runs = np.arange(n_rows) + first_B + counts_B
        self._run_lengths = np.zeros(n_examples + n_rows, np.int64)
        self._run_lengths[self._example_runs] = lengths_N
        self._run_lengths[self._padding_runs] = capacity - used_B
        run_starts = np.cumsum(self._run_lengths) - self._run_lengths
        self.starts_N = run_starts[self._example_runs]

    def concatenate(self, values: Sequence[np.ndarray], dtype: type) -> np.ndarray:
        """Lays out one array for each example.

        Args:
            values: N arrays with as many values as the example has tokens.
            dtype: The type of the result.

        Returns:
            dtype[B, L], zero in padding.
        """
        runs: list[np.ndarray] = [np.zeros(0, dtype)] * len(self._run_lengths)
        for run, value in zip(self._example_runs.tolist(), values, strict=True):
            runs[run] = value
        zeros: np.ndarray = np.zeros(self.shape[1], dtype)
        for run in self._padding_runs.tolist():
            runs[run] = zeros[: self._run_lengths[run]]
        return np.concatenate([zeros[:0], *runs], dtype=dtype).reshape(self.shape)

    def repeat(self, value_N: np.ndarray, padding: int) -> np.ndarray:
        """Gives every token the value of its example; int32[B, L], `padding` in padding."""
        of_run = np.full(len(self._run_lengths), padding, np.int32)
        of_run[self._example_runs] = value_N
        return np.repeat(of_run, self._run_lengths).reshape(self.shape)

    def segments_and_positions(self) -> dict[str, np.ndarray]:
        """`segment_ids` and `positions`, int32[B, L] each, 0 in padding.

        Segment ids are 1, 2, ... in the order of a row's examples, empty ones included. Positions
        start at 0 in each example.
        """
        count = np.arange(self.shape[1], dtype=np.int32)
        positions = [count[:length] for length in self.lengths_N.tolist()]
        segment_ids = self.repeat(self.segment_N, 0)
        return {"segment_ids": segment_ids, "positions": self.concatenate(positions, np.int32)}

    def shift_left(self, x_BxL: np.ndarray) -> np.ndarray:
        """The value of the next token of the same example; 0 at its last token."""
        shifted = np.zeros_like(x_BxL)
        shifted[:, :-1] = x_BxL[:, 1:]
        not_empty = self.lengths_N > 0
        last_N = self.starts_N + self.lengths_N - 1
        shifted.reshape(-1)[last_N[not_empty]] = 0
        return shifted

    def shift_right(self, x_BxL: np.ndarray) -> np.ndarray:
        """The value of the token before, in the same example.

        At its first token it is 0, which is T5's start id; in padding it is 0 as well.
        """
        shifted = np.zeros_like(x_BxL)
        shifted[:, 1:] = x_BxL[:, :-1]
        not_empty = self.lengths_N > 0
        shifted.reshape(-1)[self.starts_N[not_empty]] = 0
        # Without this, the last token of a row would show up in the row's padding.
        after = (self.starts_N + self.lengths_N)[not_empty]
        in_same_row = after % self.shape[1] != 0
        shifted.reshape(-1)[after[in_same_row]] = 0
        return shifted
