"""N-gram overlap of training prompts with the prompts of evaluation sets, as Tulu 3 measured it.

The rules of Lambert et al. 2024 (arXiv:2411.15124, section 3.2; the numbers were checked against
quotations of that section, not against the paper itself):

- A token of an evaluation instance matches if it lies in an 8-gram that the training prompt has
  too; the instance overlaps with the prompt if more than 50% of its tokens match that one prompt.
- A training set is contaminated by an evaluation set if more than 2% of that set's instances
  overlap with any of its prompts.

What differs: tokens are the lower-cased words of the text, without punctuation. (The paper's are
spaCy's, matched by a search engine that lower-cases and drops punctuation too.) Several fields of
an instance are one text whose n-grams do not cross fields, where the original averages the fields'
shares. An instance of fewer than eight tokens can never match, and is counted as `too_short`.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ift_jax.errors import UserError

N = 8
TOKEN_SHARE = 0.5  # An instance overlaps if more of its tokens than this match one prompt.
SET_SHARE = 0.02  # A training set is contaminated if more instances of a set than this overlap.
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the lower-cased words of a text."""
    return _WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int = N) -> list[tuple[str, ...]]:
    """Return every `n` tokens in a row."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


class _Occurrence(NamedTuple):
    instance: int
    start: int  # The n-gram's first token in the instance.


class EvaluationSet:
    """The n-grams of an evaluation set's prompts.

    Args:
        name: Its name in a report.
        prompts: One item an instance: the texts (fields) of its prompt.
        n: Words in an n-gram.

    Attributes:
        lengths: The number of tokens of each instance.
        too_short: How many instances have no n-gram.

    Raises:
        UserError: There is no instance.
    """

    def __init__(self, name: str, prompts: Iterable[Sequence[str]], n: int = N) -> None:
        self.name = name
        self.n = n
        self.lengths: list[int] = []
        self._occurrences: dict[tuple[str, ...], list[_Occurrence]] = collections.defaultdict(list)
        for instance, fields in enumerate(prompts):
            start = 0
            for field in map(words, fields):
                for i, gram in enumerate(ngrams(field, n)):
                    self._occurrences[gram].append(_Occurrence(instance, start + i))
                start += len(field)
            self.lengths.append(start)
        if not self.lengths:
            raise UserError(f"evaluation set {name!r} has no instance")
        long_enough = {
            one.instance for occurrences in self._occurrences.values() for one in occurrences
        }
        self.too_short = len(self.lengths) - len(long_enough)

    def covered(self, grams: Sequence[tuple[str, ...]]) -> dict[int, float]:
        """Return instance -> the share of its tokens that a training prompt's n-grams cover."""
        if self._occurrences.keys().isdisjoint(grams):  # Nearly always so, and no loop of Python's.
            return {}
        tokens: dict[int, set[int]] = collections.defaultdict(set)
        for gram in grams:
            for instance, start in self._occurrences.get(gram, ()):
                tokens[instance].update(range(start, start + self.n))
        return {instance: len(t) / self.lengths[instance] for instance, t in tokens.items()}


@dataclasses.dataclass
class Overlap:
    """What one evaluation set has in common with one training task.

    Attributes:
        instances: How many instances the evaluation set has.
        too_short: How many of them have no n-gram.
        overlapping: Instance -> the largest share of its tokens that one training prompt covers,
            for those over the threshold.
        training_examples: The training examples that any of them overlaps with.
    """

    instances: int
    too_short: int
    overlapping: dict[int, float] = dataclasses.field(default_factory=dict)
    training_examples: set[int] = dataclasses.field(default_factory=set)

    @property
    def share(self) -> float:
        """The share of the evaluation set's instances that overlap."""
        return len(self.overlapping) / self.instances


def overlaps(
    examples: Iterable[Sequence[str]],
    sets: Sequence[EvaluationSet],
    token_share: float = TOKEN_SHARE,
) -> dict[str, Overlap]:
    """Compare training examples with evaluation sets.

    Args:
        examples: The texts of the user's turns, for each example.
        sets: The evaluation sets.
        token_share: An instance overlaps where more of its tokens than this are covered by one
            turn.

    Returns:
        The overlap with each set, by its name.
    """
    result = {s.name: Overlap(len(s.lengths), s.too_short) for s in sets}
    sizes = {s.n for s in sets}
    for index, turns in enumerate(examples):
        for prompt in map(words, turns):
            grams = {n: ngrams(prompt, n) for n in sizes}
            for evaluation in sets:
                overlap = result[evaluation.name]
                for instance, share in evaluation.covered(grams[evaluation.n]).items():
                    if share > token_share:
                        largest = max(share, overlap.overlapping.get(instance, 0.0))
                        overlap.overlapping[instance] = largest
                        overlap.training_examples.add(index)
    return result
