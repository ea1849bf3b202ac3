"""Marks around trained tokens where there are no colors: they cannot be mistaken for text."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

_PREFERRED = ("⟦⟧", "⟪⟫", "«»", "{}", "<>")


class Run(NamedTuple):
    """Consecutive tokens of one loss weight.

    Attributes:
        text: Their text.
        weight: Their loss weight; 0 for context.
    """

    text: str
    weight: float


class Marks(NamedTuple):
    """A pair of characters that no shown text holds.

    Attributes:
        start: Begins trained tokens, and stands between a weight and its tokens.
        end: Ends them.
    """

    start: str
    end: str

    @property
    def legend(self) -> str:
        """What the marks mean."""
        return (
            f"trained tokens are between {self.start} and {self.end}; everything else is context; "
            f"{self.start}0.5{self.start}text{self.end} has the loss weight 0.5"
        )

    def marked(self, runs: Sequence[Run]) -> str:
        """Return a text with marks around each run that is trained."""
        return "".join(self._marked(run) for run in runs)

    def _marked(self, run: Run) -> str:
        if not run.weight:
            return run.text
        weight = "" if run.weight == 1 else f"{run.weight:g}{self.start}"
        return f"{self.start}{weight}{run.text}{self.end}"


def choose_marks(texts: Iterable[str], encoding: str) -> Marks:
    """Return the first pair of marks that no text holds, and that an encoding can write.

    Args:
        texts: All texts that are shown.
        encoding: The encoding of the output.
    """
    used = set().union(*map(set, texts))
    for pair in _pairs():
        if used.isdisjoint(pair) and pair == pair.encode(encoding, "ignore").decode(encoding):
            return Marks(*pair)
    raise AssertionError("no text holds all characters of the private use areas")


def _pairs() -> Iterator[str]:
    """Yield preferred pairs, then ones of characters that have no meaning in any text."""
    yield from _PREFERRED
    for code in itertools.chain(range(2, 8, 2), range(0xE000, 0xF8FF, 2)):
        yield chr(code) + chr(code + 1)
