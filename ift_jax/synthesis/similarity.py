"""Which of many texts is too similar to a new one, by ROUGE-L, without comparing all pairs.

The ROUGE-L F-measure of texts with m and n tokens and a longest common subsequence of l tokens is
2 l / (m + n). l is at most the number of tokens that both have, so a score of t takes at least
t (m + n) / 2 common tokens, and no less than t m / (2 - t) whatever n is. A text that shares fewer
of the query's rarest tokens cannot be similar; lists of the texts that have a token find the rest.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError

_SLACK = 1e-6  # Bounds are loosened by this, because scores are rounded.
# A token, and how often it came before in its text: what texts share is counted with repetitions.
_Token = tuple[str, int]


class SimilarityIndex:
    """Texts, searched for those whose ROUGE-L with a new one reaches a threshold."""

    def __init__(self, threshold: float):
        """Begin without texts.

        Args:
            threshold: The F-measure from which on texts are similar.

        Raises:
            UserError: It is not in (0, 1].
        """
        if not 0 < threshold <= 1:
            raise UserError(f"expected a threshold above 0 and at most 1; got {threshold}")
        self._threshold = threshold
        self._texts: list[list[str]] = []
        self._lengths = np.zeros(1024, np.int32)
        self._places: dict[_Token, _Places] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Add a text."""
        tokens = rouge_tokens(text)
        number = len(self._texts)
        if number == len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
        self._lengths[number] = len(tokens)
        self._texts.append(tokens)
        for token in _counted(tokens):
            self._places.setdefault(token, _Places()).append(number)

    def first_similar(self, text: str) -> int | None:
        """Return the number of the first text that is similar to a new one, or None."""
        tokens = rouge_tokens(text)
        if not tokens or not self._texts:
            return None  # Without tokens every score is 0.
        for number in self._candidates(tokens):
            if rouge_l_of_tokens(self._texts[number], tokens) >= self._threshold:
                return int(number)
        return None

    def _candidates(self, tokens: Sequence[str]) -> npt.NDArray[np.intp]:
        """Return the numbers of all texts that may be similar, in order."""
        threshold, m = self._threshold, len(tokens)
        least_common = max(math.ceil(threshold * m / (2 - threshold) - _SLACK), 1)
        places = [self._places.get(token) for token in _counted(tokens)]
        known = sorted((of_token for of_token in places if of_token), key=len)
        # Tokens that no text has cannot be among the common ones, so they come first.
        n_unknown = m - len(known)
        n_left_out = least_common - 1  # The most frequent tokens: their lists are the longest.
        read = known[: max(m - n_left_out - n_unknown, 0)]
        if not read:
            return np.zeros(0, np.intp)
        found = np.concatenate([of_token.numbers for of_token in read])
        n_common = np.bincount(found, minlength=len(self._texts))
        some = np.flatnonzero(n_common)
        n_needed = threshold * (m + self._lengths[some]) / 2 - _SLACK
        return some[n_common[some] + n_left_out >= n_needed]


class _Places:
    """The numbers of the texts that have a token, in an array that grows."""

    def __init__(self) -> None:
        self._array = np.zeros(4, np.intp)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def append(self, number: int) -> None:
        if self._n == len(self._array):
            self._array = np.concatenate([self._array, np.zeros_like(self._array)])
        self._array[self._n] = number
        self._n += 1

    @property
    def numbers(self) -> npt.NDArray[np.intp]:
        return self._array[: self._n]


def rouge_tokens(text: str) -> list[str]:
    """Return the tokens of the package rouge_score without its stemmer."""
    from rouge_score import tokenize  # Imported on use: only synthesis needs it.

    return tokenize.tokenize(text, None)


def rouge_l_of_tokens(target: Sequence[str], prediction: Sequence[str]) -> float:
    """Return the ROUGE-L F-measure, rounded just as rouge_score rounds it."""
    common = longest_common_subsequence(target, prediction)
    if not common:
        return 0.0
    precision = common / len(prediction)
    recall = common / len(target)
    return 2 * precision * recall / (precision + recall)


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    By bit vectors (Hyyrö 2004): a bit for each token of `a`, one step for each token of `b`.
    """
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | 1 << i
    ones = (1 << len(a)) - 1
    row = ones
    for token in b:
        matches = row & places.get(token, 0)
        row = (row + matches | row - matches) & ones
    return len(a) - row.bit_count()


def _counted(tokens: Sequence[str]) -> list[_Token]:
    """Number the repetitions of each token."""
    seen: dict[str, int] = {}
    counted = []
    for token in tokens:
        seen[token] = seen.get(token, 0) + 1
        counted.append((token, seen[token]))
    return counted
