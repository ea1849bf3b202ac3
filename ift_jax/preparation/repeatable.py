"""Finding tasks whose examples change from one reading to the next, as an unseeded shuffle does.

Stores of one name must have the same bytes wherever they are made: hosts that prepare for
themselves would otherwise train on different data, and a part made again would lose examples of
its neighbors and repeat others.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from ift_jax.errors import UserError, of_users_code
from ift_jax.preparation.read_examples import Reading, examples
from ift_jax.sources.task_examples import direct_source

_COMPARED = 64  # Examples from the beginning of the split.
# A shuffle of only a few examples may come out twice in the same order, so that a short split is
# read again more often: two examples in one order seven times are one case in 64.
_SHORT = 8
_REREAD_SHORT = 6


def check_repeatable(reading: Reading) -> None:
    """Read the first examples of a split again, and compare them.

    Args:
        reading: A reading of a shard of the split.

    Raises:
        UserError: They are others than before, although the seed is the same.
    """
    reading = dataclasses.replace(reading, shard=0, shards=1)
    before = _first_examples(reading)
    if not before:
        return
    for _ in range(_REREAD_SHORT if 1 < len(before) < _SHORT else 1):
        if _first_examples(reading) != before:
            raise UserError(
                f"task {reading.task.name!r}, split {reading.split!r}: its first examples change "
                "from one reading to the next with the same seed (a shuffle or a draw without a "
                "seed?), so every store of it would hold other data; seed them, or draw with "
                "seqio.map_over_dataset(num_seeds=1)"
            )


def _first_examples(reading: Reading) -> list[dict[str, Any]]:
    source = direct_source(reading.task)
    if source is not None:
        # Reading is a function of the index there, so that a draw shows at once.
        with of_users_code(reading.what):
            records = source.records(reading.split, seed=reading.seed)
            return list(itertools.islice(records, _SHORT))
    found = examples(reading, limit=_COMPARED)
    return [{name: _comparable(value) for name, value in fields.items()} for fields in found]


def _comparable(value: Any) -> Any:
    """Return a string as it is, and an array as a value that `==` compares as a whole."""
    return value.tobytes() if isinstance(value, np.ndarray) else value
