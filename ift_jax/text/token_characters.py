"""Which tokens hold which characters of a text, for weights that do not end where answers do."""

import bisect
import functools
from collections.abc import Sequence

from ift_jax.text.tokenizers.base import Tokenizer


class TokenCharacters(Sequence[int]):
    """The text of some tokens, and the index after the last character of each token.

    An index is computed when it is asked for: few are.

    Attributes:
        text: What the tokens decode to, control tokens among it.
    """

    def __init__(self, ids: Sequence[int], tokenizer: Tokenizer):
        self._ids = ids
        self._tokenizer = tokenizer

    @functools.cached_property
    def text(self) -> str:
        """What the tokens decode to, control tokens among it."""
        return self._tokenizer.decode(self._ids, keep_special=True)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, k: int) -> int:  # type: ignore[override]
        text = self._tokenizer.decode(self._ids[: k + 1], keep_special=True)
        # The first bytes of a character decode to U+FFFD: their tokens end where it ends.
        whole = len(text.rstrip("\ufffd"))
        return whole + (whole < len(text))

    def holding(self, begin: int, end: int) -> slice:
        """Return the tokens that hold a character of a range; a character may have several."""
        if begin >= end:
            return slice(0, 0)
        first = bisect.bisect_right(self, begin)
        last = bisect.bisect_left(self, end)
        return slice(first, bisect.bisect_right(self, self[min(last, len(self) - 1)]))

    def within(self, begin: int, end: int) -> slice:
        """Return the tokens that hold characters of a range and no others."""
        if begin >= end:
            edge = bisect.bisect_right(self, begin)
            return slice(edge, edge)
        held = self.holding(begin, end)
        start, stop = held.start, held.stop
        while start < stop and (self[start - 1] if start else 0) < begin:
            start += 1
        while start < stop and self[stop - 1] > end:
            stop -= 1
        return slice(start, stop)
