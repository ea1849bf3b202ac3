"""Fitting token ids into the length limits of a run."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.errors import UserError


class Cut(NamedTuple):
    """Pieces of token ids that fit their limit."""

    pieces: list[list[int]]
    truncated: int  # How many ids were cut off.


@dataclasses.dataclass(frozen=True)
class LengthLimits:
    """The length limits of a run, and what is done with a record that exceeds one.

    Attributes:
        max_length: The most tokens of a decoder's example.
        inputs_length: The most tokens of an encoder's input.
        targets_length: The most tokens of an encoder-decoder's targets.
        over_length: "drop", "truncate-prompt" or "error".
    """

    max_length: int
    inputs_length: int
    targets_length: int
    over_length: str

    def of(self, field: str) -> int:
        """Return the limit that a field of the config sets, such as "max_length"."""
        return getattr(self, field)

    def fit(
        self, pieces: Sequence[list[int]], may_cut: Sequence[bool], field: str, where: str
    ) -> Cut | None:
        """Fit pieces of ids into a limit.

        Under "truncate-prompt" the longest pieces that may be cut lose their ends, down to one
        common length. Nothing else is ever cut.

        Args:
            pieces: The pieces, which are joined.
            may_cut: For each piece whether it may be cut.
            field: The limit.
            where: The record's place, for the error.

        Returns:
            The pieces, or None if they cannot be made to fit and the record is to be dropped.

        Raises:
            UserError: They do not fit, under "error".
        """
        limit = self.of(field)
        size = sum(map(len, pieces))
        if size <= limit:
            return Cut(list(pieces), 0)
        if self.over_length == "error":
            raise UserError(f"{where}: {size} tokens; expected at most data.{field} = {limit}")
        excess = size - limit
        lengths = [len(piece) if cut else 0 for piece, cut in zip(pieces, may_cut, strict=True)]
        if self.over_length == "drop" or sum(lengths) < excess:
            return None
        kept = shorten_longest(lengths, excess)
        shortened = [
            piece[:keep] if cut else piece
            for piece, cut, keep in zip(pieces, may_cut, kept, strict=True)
        ]
        return Cut(shortened, excess)


def shorten_longest(lengths: Sequence[int], excess: int) -> list[int]:
    """Take `excess` in all from the longest lengths, down to one common length.

    Args:
        lengths: Lengths whose sum is at least `excess`.
        excess: How much is taken.

    Returns:
        What is left of each length.
    """
    left = sum(lengths) - excess
    kept = [0] * len(lengths)
    # From the shortest on, each keeps at most an equal share of what is left.
    shortest_first = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for done, i in enumerate(shortest_first):
        kept[i] = min(lengths[i], left // (len(lengths) - done))
        left -= kept[i]
    return kept
