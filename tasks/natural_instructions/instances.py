"""What the sources of both releases share: the choice of instances and the records' fields."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from ift_jax.data.randomness import Draws, hash64
from ift_jax.sources.base import PythonDataSource, existing_file
from tasks.natural_instructions.options import InstanceOptions

Options = TypeVar("Options", bound=InstanceOptions)


class TaskFileSource(PythonDataSource, Generic[Options]):
    """Base of a source that reads one task file.

    A record has `inputs`, `targets` and `references` (a JSON list of all right outputs).

    Args:
        path: The task's JSON file.
        held_out: False gives the splits "train" and "validation", True gives "test" alone.
        options: The choice of instances, and what a prompt shows.

    Attributes:
        path: The absolute path of the task's file.
    """

    def __init__(self, path: str, *, held_out: bool, options: Options) -> None:
        self.path = existing_file(path)
        self._options = options
        super().__init__(("test",) if held_out else ("train", "validation"))

    @property
    def fields(self) -> tuple[str, ...]:
        return ("inputs", "targets", "references")

    def files(self, split: str) -> list[str]:
        return [self.path]

    def options(self, split: str) -> Any:
        return [split, dataclasses.asdict(self._options)]


def count_chosen(n: int, split: str, options: InstanceOptions) -> int:
    """Return how many instances are in a split: the length of `chosen_instances`."""
    if split == "test":
        return min(n, options.test_cap)
    n_validation = _count_validation(n, options)
    return n_validation if split == "validation" else min(n - n_validation, options.train_cap)


def _count_validation(n: int, options: InstanceOptions) -> int:
    return min(options.validation_cap, max(1, n // 10), n - 1)


@functools.lru_cache(maxsize=8)  # A split is read several times in a row.
def chosen_instances(n: int, name: str, split: str, options: InstanceOptions) -> tuple[int, ...]:
    """Return the numbers of the instances in a split, in ascending order.

    Args:
        n: How many instances the file has.
        name: The file's name in the hash that orders the instances.
        split: "train", "validation" or "test".
        options: The caps and the seed.
    """
    if split == "test":
        return tuple(range(min(n, options.test_cap)))
    order = sorted(range(n), key=lambda number: hash64(options.seed, name, number))
    n_validation = _count_validation(n, options)
    if split == "validation":
        return tuple(sorted(order[:n_validation]))
    return tuple(sorted(order[n_validation:][: options.train_cap]))


def chosen_target(outputs: Sequence[str], split: str, draws: Draws) -> str:
    """Return one of the right outputs: drawn for training, the first in the other splits."""
    return draws.choice(outputs) if split == "train" else outputs[0]


def record(inputs: str, target: str, outputs: Sequence[str]) -> dict[str, str]:
    """Return the record of an instance."""
    references = json.dumps(outputs, ensure_ascii=False)
    return {"inputs": inputs, "targets": target, "references": references}
