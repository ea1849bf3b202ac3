"""Pairs in rows: the two sides of each stand one behind the other, as segments of their own.

So the pair k of a row, from 0, has the chosen segment 2k + 1 and the rejected segment 2k + 2.
"""

from typing import NamedTuple

import numpy as np

from ift_jax.data.packed_layout import RowLayout

REFERENCE = "reference_log_probs"  # The name of the array in a batch.
SHORTEST_SIDE = 2  # Tokens: one that is trained, and one that predicts it.


class Sequences(NamedTuple):
    """What becomes segments: the N sequences of some rows, row after row."""

    lengths_N: np.ndarray  # int[N], tokens of each.
    counts_B: np.ndarray  # int[B], sequences in each row.
    task_ids_N: np.ndarray  # int32[N].
    tokens: list[np.ndarray]
    weights: list[np.ndarray]

    def split_pairs(self, rejected_starts_N: np.ndarray) -> "Sequences":
        """Return the 2N sides of sequences that are pairs.

        Args:
            rejected_starts_N: int[N], where the rejected side of each begins.
        """
        chosen_lengths = rejected_starts_N
        sides_Nx2 = np.stack([chosen_lengths, self.lengths_N - chosen_lengths], axis=1)
        starts = rejected_starts_N.tolist()

        def sides(values: list[np.ndarray]) -> list[np.ndarray]:
            both = zip(values, starts, strict=True)
            return [side for value, start in both for side in (value[:start], value[start:])]

        return Sequences(
            sides_Nx2.reshape(-1),
            2 * self.counts_B,
            np.repeat(self.task_ids_N, 2),
            sides(self.tokens),
            sides(self.weights),
        )


def at_first_tokens(layout: RowLayout, values_N: np.ndarray) -> np.ndarray:
    """Lay out one number for each segment: float32[B, L], at its first token, and 0 elsewhere."""
    laid_out = np.zeros(layout.shape, np.float32)
    laid_out.reshape(-1)[layout.starts_N] = values_N
    return laid_out


def most_pairs(row_length: int) -> int:
    """Return how many pairs a row of so many tokens can hold."""
    return max(row_length // (2 * SHORTEST_SIDE), 1)
