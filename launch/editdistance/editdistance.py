"""The Levenshtein distance in plain Python, under the name that SeqIO imports.

SeqIO uses it to suggest the nearest name of a task, so speed does not matter.
"""

from collections.abc import Sequence
from typing import Any


def eval(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Return the least number of insertions, deletions and substitutions from a to b."""
    row = list(range(len(b) + 1))
    for i, item in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (item != other))
            diagonal, row[j] = row[j], best
    return row[-1]
