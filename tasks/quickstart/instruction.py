"""An instruction task that generates its own examples, and the data source of one.

An example is drawn in two steps. Its *item*, the fields that its answer depends on, is fixed by
the task's name and a counter; its *phrasing* is drawn by (seed, task, split, index). A hash of the
item alone decides its split, so that no phrasing of a validation item occurs in training.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ift_jax.data.randomness import Draws, hash64
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource

Fields = Mapping[str, Any]  # Texts, and perhaps "options", a list of them.

_VALIDATION_ONE_IN = 10  # One item of so many goes to validation, chosen by hash.
_ATTEMPTS = 60  # Draws allowed for each wanted example; items that repeat are discarded.


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction task.

    Attributes:
        name: The task's name without the prefix "quickstart_".
        cluster: The kind of task. A held-out cluster is held out as a whole.
        phrasings: At least four prompts. Each contains all fields of an item but
            `answer` and `options`.
        draw: Returns the fields of a random item, with the right `answer` to it, which may be one
            of its `options`.
        train: The number of different items of the split "train".
        validation: The number of different items of the split "validation".
    """

    name: str
    cluster: str
    phrasings: tuple[str, ...]
    draw: Callable[[Draws], Fields]
    train: int = 400
    validation: int = 60

    @functools.cached_property
    def items(self) -> Mapping[str, Sequence[Fields]]:
        """The different items of the splits "train" and "validation", always the same ones.

        Raises:
            UserError: `draw` does not make enough different items.
        """
        sizes = {"train": self.train, "validation": self.validation}
        wanted = sum(sizes.values())
        found: dict[str, list[Fields]] = {split: [] for split in sizes}
        seen = set()
        n_found = 0
        for attempt in range(_ATTEMPTS * wanted + 1):
            fields = self.draw(Draws("item", self.name, attempt))
            key = _item_key(fields)
            if key in seen:
                continue
            seen.add(key)
            split = self._split_of(key)
            if len(found[split]) < sizes[split]:
                found[split].append(fields)
                n_found += 1
            if n_found == wanted:
                return found
        counts = {split: len(items) for split, items in found.items()}
        raise UserError(f"quickstart task {self.name}: only {counts} different items")

    @property
    def has_options(self) -> bool:
        """Whether its prompts name options, one of which is the answer."""
        return "options" in self.draw(Draws("item", self.name, 0))

    def _split_of(self, key: str) -> str:
        is_validation = hash64("split", self.name, key) % _VALIDATION_ONE_IN == 0
        return "validation" if is_validation else "train"

    def render(self, fields: Fields, phrasing: int) -> dict[str, str]:
        """Return the text-to-text record of an item in one of the phrasings."""
        inputs = self.phrasings[phrasing].format_map(fields)
        if "options" not in fields:
            return {"inputs": inputs, "targets": str(fields["answer"])}
        options = ", ".join(fields["options"])
        # A sentence, because a word at its start is another token than inside a text.
        return {"inputs": f"{inputs}\nOptions: {options}", "targets": f"It is {fields['answer']}."}


def _item_key(fields: Fields) -> str:
    """Return the text that tells an item from others: all its fields but answer and options."""
    return "|".join(
        str(value) for name, value in fields.items() if name not in ("answer", "options")
    )


class InstructionSource(PythonDataSource):
    """The records of an `Instruction`.

    Args:
        instruction: The task.
        modules: Paths of the Python files that generate the text.
        held_out: Whether the task has the split "test" alone, with its validation items.
    """

    def __init__(self, instruction: Instruction, modules: Sequence[str], *, held_out: bool) -> None:
        self._instruction = instruction
        self._modules = [os.path.abspath(path) for path in modules]
        super().__init__(("test",) if held_out else ("train", "validation"))

    @property
    def cluster(self) -> str:
        """The kind of task, over which an evaluation takes means."""
        return self._instruction.cluster

    @property
    def fields(self) -> tuple[str, ...]:
        return ("inputs", "targets")

    def files(self, split: str) -> list[str]:
        """Return the Python files that generate the text: it stays the same as long as they do."""
        return list(self._modules)

    def fingerprint(self, split: str) -> str:
        """Return a hash of the text, so that edits of the code that keep the text keep the hash."""
        self.check_split(split)
        items = [dict(fields) for fields in self.items(split)]
        content = json.dumps([items, self._instruction.phrasings])
        return f"{hash64(content):016x}{hash64(self._instruction.name, split):016x}"

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        return self._instruction.train if split == "train" else self._instruction.validation

    def items(self, split: str) -> Sequence[Fields]:
        return self._instruction.items["train" if split == "train" else "validation"]

    def render(self, item: Any, split: str, index: int, seed: int) -> dict[str, str]:
        draws = Draws("phrasing", seed, self._instruction.name, split, index)
        return self._instruction.render(item, draws.below(len(self._instruction.phrasings)))
