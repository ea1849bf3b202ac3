"""Natural Instructions, the first release (Mishra et al. 2021, arXiv:2104.08773): 61 subtasks.

A file `subtask*.json` has a title, a short prompt, a definition, things to avoid, emphasis and
caution, positive and negative examples with reasons, and instances. `register(root)` finds the
files in the root or in its folders and registers `natural_instructions_v1_<subtask>` and

- `natural_instructions_v1_train`: all subtasks but those of `splits/v1/test_tasks.txt`;
- `natural_instructions_v1_heldout`: the subtasks of that list, split "test", where the list exists
  (the paper holds out 12 subtasks, two of each of six categories).

The input has the paper's parts in the paper's order: title, prompt, definition, things to avoid,
emphasis and caution, negative examples, positive examples, the instance. (The white space between
them follows our reading of the paper and has not been verified.) Examples are added one by one
while they fit.
"""

import dataclasses
import glob
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.io.json_reader import read_json_file
from ift_jax.sources.demonstrations import PromptLimit
from ift_jax.sources.register import register_mixture, register_task, task_name
from tasks.natural_instructions.files import checked_outputs, read_list, task_stem
from tasks.natural_instructions.instances import (
    TaskFileSource,
    chosen_instances,
    chosen_target,
    record,
)
from tasks.natural_instructions.metrics import METRICS
from tasks.natural_instructions.options import InstanceOptions
from tasks.natural_instructions.prompts import prompt_with_examples

PREFIX = "natural_instructions_v1"
_PARTS = ("Title", "Prompt", "Definition", "Things to Avoid", "Emphasis & Caution")
_EMPTY = ("", "-")  # The release writes "-" for an empty text.
_RELEASE = "github.com/allenai/natural-instructions-v1"


@dataclasses.dataclass(frozen=True)
class V1Options(InstanceOptions):
    """How a subtask becomes records; see `InstanceOptions` for the caps.

    Attributes:
        parts: The fields of the instructions that an input shows, in order.
    """

    parts: tuple[str, ...] = _PARTS
    negative_examples: int = 2
    train_cap: int = 6500  # The release has up to 6,500 instances of a subtask.
    validation_cap: int = 100


class NaturalInstructionsV1Source(TaskFileSource[V1Options]):
    """The records of one subtask: `inputs`, `targets` and `references` (a JSON list)."""

    def __init__(
        self, path: str, *, held_out: bool = False, options: V1Options | None = None
    ) -> None:
        super().__init__(path, held_out=held_out, options=options or V1Options())

    @property
    def datasets(self) -> frozenset[str]:
        return frozenset({f"Natural Instructions v1 {task_stem(self.path)}"})

    def items(self, split: str) -> Iterator[tuple[Mapping[str, Any], int]]:
        subtask = load_subtask(self.path)
        n = len(subtask["Instances"])
        for number in chosen_instances(n, os.path.basename(self.path), split, self._options):
            yield subtask, number

    def render(
        self, item: tuple[Mapping[str, Any], int], split: str, index: int, seed: int
    ) -> dict[str, str]:
        subtask, number = item
        instance = subtask["Instances"][number]
        where = f"{self.path}: Instances[{number}]"
        outputs = checked_outputs(instance.get("output"), where)
        draws = Draws(seed, os.path.basename(self.path), number)
        target = chosen_target(outputs, split, draws)
        return record(prompt(subtask, instance["input"], self._options), target, outputs)


def prompt(subtask: Mapping[str, Any], text: str, options: V1Options) -> str:
    """Return the input of an instance: the instructions, examples while they fit, the text."""
    instructions = ""
    for part in options.parts:
        value = str(subtask.get(part) or "").strip()
        if value not in _EMPTY:
            instructions += f"{part}: {value}\n"
    examples = [
        _example_texts(subtask, "Negative", options.negative_examples),
        _example_texts(subtask, "Positive", options.positive_examples),
    ]
    question = f"input: {text.strip()}\noutput: "
    limit = PromptLimit(options.max_characters)
    return prompt_with_examples(instructions, examples, question, limit)


def _example_texts(subtask: Mapping[str, Any], kind: str, limit: int) -> list[str]:
    groups = subtask.get("Examples") or {}
    values = groups.get(f"{kind} Examples") or []
    examples = [value for value in values if isinstance(value, dict)]
    return [
        f"{kind} Example {number} -\n" + _example_text(example)
        for number, example in enumerate(examples[:limit], 1)
    ]


def _example_text(example: Mapping[str, Any]) -> str:
    text = ""
    for key in ("input", "output", "reason"):
        value = str(example.get(key) or "").strip()
        if value not in _EMPTY:
            text += f"{key}: {value}\n"
    return text


def load_subtask(path: str) -> dict[str, Any]:
    """Read a subtask's file.

    Raises:
        UserError: The file is not JSON, or has no definition or instances; the message names the
            file and the field.
    """
    value = read_json_file(path)
    if not isinstance(value, dict) or not isinstance(value.get("Definition"), str):
        raise UserError(f"{path}: Definition is missing; expected the first release's schema")
    instances = value.get("Instances")
    if not isinstance(instances, list) or not instances:
        raise UserError(f"{path}: Instances: expected at least one instance")
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or not isinstance(instance.get("input"), str):
            raise UserError(f"{path}: Instances[{number}]: input is missing; expected a string")
    return value


def register(root: str, options: V1Options | None = None) -> None:
    """Register the subtasks below a folder and their mixtures.

    Raises:
        UserError: There is no such folder, no subtask in it, or a list that names none of them.
    """
    listed = _held_out_names(root)
    train: list[str] = []
    heldout: list[str] = []
    for path in _subtask_files(root):
        stem = task_stem(path)
        held_out = stem in listed
        source = NaturalInstructionsV1Source(path, held_out=held_out, options=options)
        name = f"{PREFIX}_{task_name(stem)}"
        register_task(name, source, metric_fns=METRICS)
        names = heldout if held_out else train
        names.append(name)
    if listed and not heldout:
        raise UserError(f"{root}: none of the subtasks of splits/v1/test_tasks.txt is there")
    register_mixture(f"{PREFIX}_train", train)
    if heldout:
        register_mixture(f"{PREFIX}_heldout", [(name, 1.0) for name in heldout])


def _subtask_files(root: str) -> list[str]:
    """Return the paths of the subtasks in a folder and its folders, sorted by name."""
    if not root or not os.path.isdir(root):
        raise UserError(
            f"data.root {root!r}: not a folder; expected Natural Instructions v1.0 (the "
            f"subtask*.json files of {_RELEASE}, or a folder that holds them)"
        )
    folder = glob.escape(root)
    paths = glob.glob(f"{folder}/subtask*.json") + glob.glob(f"{folder}/*/subtask*.json")
    if not paths:
        raise UserError(f"{root}: no subtask*.json in it or its folders; get them from {_RELEASE}")
    return sorted(paths, key=os.path.basename)


def _held_out_names(root: str) -> frozenset[str]:
    path = os.path.join(root, "splits", "v1", "test_tasks.txt")
    return frozenset(read_list(path)) if os.path.isfile(path) else frozenset()
