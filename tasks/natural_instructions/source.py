"""Natural Instructions task files as records, prompted as Tk-Instruct does (arXiv:2204.07705)."""

from collections.abc import Iterator
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.io.files import file_digest
from ift_jax.sources.base import existing_file
from tasks.natural_instructions.files import InstructionTask, load_task, summary, task_stem
from tasks.natural_instructions.instances import (
    TaskFileSource,
    chosen_instances,
    chosen_target,
    count_chosen,
    record,
)
from tasks.natural_instructions.prompts import (
    FIVE_WAYS,
    NaturalInstructionsOptions,
    encoded,
    prompt,
)

__all__ = ["NaturalInstructionsDataSource", "NaturalInstructionsOptions", "load_task", "prompt"]


def dataset_of(path: str) -> str:
    """Return the name of a task file in `datasets`, the same in every system that reads it."""
    return f"Natural Instructions {task_stem(path)}"


class NaturalInstructionsDataSource(TaskFileSource[NaturalInstructionsOptions]):
    """The records of one task file: `inputs`, `targets` and `references` (a JSON list).

    The training target is one of the instance's outputs, drawn by (seed, task, instance); in the
    other splits it is the first.

    Args:
        path: The task's JSON file.
        held_out: False gives the splits "train" and "validation", True gives "test" alone.
        options: Caps, encoding and seed.
    """

    def __init__(
        self,
        path: str,
        *,
        held_out: bool = False,
        options: NaturalInstructionsOptions | None = None,
    ) -> None:
        super().__init__(path, held_out=held_out, options=options or NaturalInstructionsOptions())

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({dataset_of(self.path)})

    @property
    def cluster(self) -> str:
        """The category of the task, over which an evaluation takes means; "" without one."""
        return summary(self.path).category

    def num_input_examples(self, split: str) -> int:
        self.check_split(split)
        return count_chosen(summary(self.path).n_instances, split, self._options)

    def options(self, split: str) -> Any:
        split, options = super().options(split)
        if self._options.tokenizer:
            # The tokenizer's content decides which examples fit; its path does not matter.
            options["tokenizer"] = file_digest(existing_file(self._options.tokenizer))
        return [split, options]

    def items(self, split: str) -> Iterator[tuple[InstructionTask, int]]:
        task = load_task(self.path)
        for number in chosen_instances(len(task.instances), task.name, split, self._options):
            yield task, number

    def render(
        self, item: tuple[InstructionTask, int], split: str, index: int, seed: int
    ) -> dict[str, str]:
        task, number = item
        instance = task.instances[number]
        draws = Draws(seed, task.name, number)
        target = chosen_target(instance.outputs, split, draws)
        options = self._options
        if options.five_way:
            # Prompts of instances that training does not see stay the same for every seed.
            encoding = draws.choice(FIVE_WAYS) if split == "train" else "definition_positive2"
            options = encoded(options, encoding)
        return record(prompt(task, instance.input, options), target, instance.outputs)
