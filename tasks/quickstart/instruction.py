"""An instruction task that makes its own examples, and the data source of one.

An example is drawn in two steps. Its *item*, the fields that its answer depends on, is fixed by
the task's name and a counter; its *phrasing* is drawn by (seed, task, index). A hash of the item
alone decides its split, so that no phrasing of a validation item occurs in training.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ift_jax.data.randomness import Draws, hash64
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource

Fields = Mapping[str, str | int]

_VALIDATION_ONE_IN = 14  # Items whose hash falls to validation.
_ATTEMPTS = 60  # Draws for each example that is wanted; repeated items are discarded.


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction task.

    Attributes:
      name: without the prefix "quickstart_".
      cluster: tasks of a kind; a held-out cluster is held out whole.
      phrasings: at least four prompts; each names all fields of an item but `answer`.
      draw: returns the fields of a random item, with the right `answer` to it.
      train, validation: how many different items the splits have.
    """

    name: str
    cluster: str
    phrasings: tuple[str, ...]
    draw: Callable[[Draws], Fields]
    train: int = 3000
    validation: int = 150

    @functools.cached_property
    def items(self) -> Mapping[str, Sequence[Fields]]:
        """Different items of the splits "train" and "validation", always the same."""
        sizes = {"train": self.train, "validation": self.validation}
        found: dict[str, list[Fields]] = {split: [] for split in sizes}
        seen = set()
        for k in itertools.count():
            if all(len(found[split]) == size for split, size in sizes.items()):
                return found
            if k > _ATTEMPTS * (self.train + self.validation):
                counts = {split: len(items) for split, items in found.items()}
                raise UserError(f"quickstart task {self.name}: only {counts} different items")
            fields = self.draw(Draws("item", self.name, k))
            key = "|".join(str(value) for name, value in fields.items() if name != "answer")
            if key in seen:
                continue
            seen.add(key)
            held_out = hash64("split", self.name, key) % _VALIDATION_ONE_IN == 0
            split = "validation" if held_out else "train"
            if len(found[split]) < sizes[split]:
                found[split].append(fields)
        raise AssertionError("not reached")

    def render(self, fields: Fields, phrasing: int) -> dict[str, str]:
        """Returns the text-to-text record of an item in one of the phrasings."""
        inputs = self.phrasings[phrasing].format_map(fields)
        return {"inputs": inputs, "targets": str(fields["answer"])}


class InstructionSource(PythonDataSource):
    """The records of an `Instruction`.

    A held-out task has the split "test" alone: its validation items.
    """

    def __init__(self, instruction: Instruction, modules: Sequence[str], *, held_out: bool) -> None:
        self._instruction = instruction
        self._modules = [os.path.abspath(path) for path in modules]
        super().__init__(("test",) if held_out else ("train", "validation"))

    @property
    def fields(self) -> tuple[str, ...]:
        return ("inputs", "targets")

    def files(self, split: str) -> list[str]:
        """The Python files that make the text: where they are unchanged, so is the text."""
        return list(self._modules)

    def fingerprint(self, split: str) -> str:
        """A hash of the text itself; an edit that does not change it is no change."""
        self.check_split(split)
        content = [list(map(dict, self.items(split))), self._instruction.phrasings]
        return f"{hash64(json.dumps(content)):016x}{hash64(self._instruction.name, split):016x}"

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        return self._instruction.train if split == "train" else self._instruction.validation

    def items(self, split: str) -> Sequence[Fields]:
        return self._instruction.items["train" if split == "train" else "validation"]

    def render(self, item: Any, split: str, index: int, seed: int) -> dict[str, str]:
        draws = Draws("phrasing", seed, self._instruction.name, split, index)
        return self._instruction.render(item, draws.below(len(self._instruction.phrasings)))
