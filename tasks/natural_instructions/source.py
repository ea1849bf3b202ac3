"""Natural Instructions task files as records, prompted as Tk-Instruct does (arXiv:2204.07705)."""

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from ift_jax.data.randomness import Draws, hash64
from ift_jax.io.files import file_digest
from ift_jax.sources.base import PythonDataSource, existing_file
from tasks.natural_instructions.files import InstructionTask, load_task
from tasks.natural_instructions.prompts import (
    FIVE_WAYS,
    NaturalInstructionsOptions,
    encoded,
    prompt,
)

__all__ = ["NaturalInstructionsDataSource", "NaturalInstructionsOptions", "load_task", "prompt"]


def dataset_of(path: str) -> str:
    """What `datasets` calls a task's file: the same for every system that reads it."""
    return "Natural Instructions " + os.path.basename(path).removesuffix(".json")


class NaturalInstructionsDataSource(PythonDataSource):
    """The records of one task file: `inputs`, `targets` and `references` (a JSON list).

    Args:
      path: the task's JSON file.
      held_out: False gives the splits "train" and "validation", True gives "test" alone.
      options: caps, demonstrations and seed.

    The training target is one of the instance's outputs, drawn by (seed, task, index); in the
    other splits it is the first.
    """

    def __init__(
        self,
        path: str,
        *,
        held_out: bool = False,
        options: NaturalInstructionsOptions | None = None,
    ) -> None:
        self._path = existing_file(path)
        self._options = options or NaturalInstructionsOptions()
        super().__init__(("test",) if held_out else ("train", "validation"))

    @property
    def fields(self) -> tuple[str, ...]:
        return ("inputs", "targets", "references")

    def files(self, split: str) -> list[str]:
        return [self._path]

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({dataset_of(self._path)})

    @property
    def path(self) -> str:
        """The task's file."""
        return self._path

    def options(self, split: str) -> Any:
        options = dataclasses.asdict(self._options)
        if self._options.tokenizer:  # Its bytes decide what fits, not where they lie.
            options["tokenizer"] = file_digest(existing_file(self._options.tokenizer))
        return [split, options]

    def items(self, split: str) -> Iterator[tuple[InstructionTask, int]]:
        task = load_task(self._path)
        for number in self._chosen(task, split):
            yield task, number

    def _chosen(self, task: InstructionTask, split: str) -> list[int]:
        options, n = self._options, len(task.instances)
        if split == "test":
            return list(range(min(n, options.test_cap)))
        order = sorted(range(n), key=lambda i: hash64(options.seed, task.name, i))
        n_validation = min(options.validation_cap, max(1, n // 10), n - 1)
        if split == "validation":
            return sorted(order[:n_validation])
        return sorted(order[n_validation:][: options.train_cap])

    def render(
        self, item: tuple[InstructionTask, int], split: str, index: int, seed: int
    ) -> dict[str, str]:
        task, number = item
        outputs = task.instances[number].outputs
        draws = Draws(seed, task.name, number)
        target = draws.choice(outputs) if split == "train" else outputs[0]
        options = self._options
        if options.five_way:  # What is asked of unseen instances does not change by chance.
            way = draws.choice(FIVE_WAYS) if split == "train" else "definition_positive2"
            options = encoded(options, way)
        return {
            "inputs": prompt(task, task.instances[number].input, options),
            "targets": target,
            "references": json.dumps(outputs, ensure_ascii=False),
        }
