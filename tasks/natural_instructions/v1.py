"""Natural Instructions, the first release (Mishra et al. 2021, arXiv:2104.08773): 61 subtasks.

A file `subtask*.json` has a title, a short prompt, a definition, things to avoid, points to
emphasise, positive and negative examples with reasons, and instances. `register(root)` finds
the files in the root or in its folders and registers `natural_instructions_v1_<subtask>` and

- `natural_instructions_v1_train`: all subtasks but those of `splits/v1/test_tasks.txt`;
- `natural_instructions_v1_heldout`: those of that list, split "test", where the list exists
  (the paper holds out 12 subtasks, two of each of six categories).

The input has the paper's parts in the paper's order (its exact white space is from the paper,
unverified): title, prompt, definition, things to avoid, emphasis and caution, negative examples,
positive examples, the instance. Demonstrations are added one by one while they fit.
"""

import dataclasses
import glob
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.data.randomness import Draws, hash64
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.register import register_mixture, register_task, task_name
from tasks.natural_instructions.metrics import METRICS

PREFIX = "natural_instructions_v1"
_PARTS = ("Title", "Prompt", "Definition", "Things to Avoid", "Emphasis & Caution")


@dataclasses.dataclass(frozen=True)
class V1Options:
    """How a subtask becomes records.

    Attributes:
      parts: which fields of the instructions an input shows, in order.
      positive_examples: at the most.
      negative_examples: at the most.
      train_cap: training instances a subtask, chosen by seed (the release has up to 6,500).
      validation_cap: instances that training never sees: a tenth, this many at the most.
      test_cap: instances of a held-out subtask, the first ones.
      max_characters: an example is left out where the input would become longer.
      seed: of the choice of instances.
    """

    parts: tuple[str, ...] = _PARTS
    positive_examples: int = 2
    negative_examples: int = 2
    train_cap: int = 6500
    validation_cap: int = 100
    test_cap: int = 100
    max_characters: int = 4000
    seed: int = 0


class NaturalInstructionsV1Source(PythonDataSource):
    """The records of one subtask: `inputs`, `targets` and `references` (a JSON list)."""

    def __init__(self, path: str, *, held_out: bool = False, options: V1Options | None = None):
        self.path = os.path.abspath(path)
        self._options = options or V1Options()
        super().__init__(("test",) if held_out else ("train", "validation"))

    @property
    def fields(self) -> tuple[str, ...]:
        return ("inputs", "targets", "references")

    def files(self, split: str) -> list[str]:
        return [self.path]

    @property
    def datasets(self) -> frozenset[str]:
        stem = os.path.basename(self.path).removesuffix(".json")
        return frozenset({f"Natural Instructions v1 {stem}"})

    def options(self, split: str) -> Any:
        return [split, dataclasses.asdict(self._options)]

    def items(self, split: str) -> Iterator[tuple[Mapping[str, Any], int]]:
        subtask = load_subtask(self.path)
        n, options = len(subtask["Instances"]), self._options
        if split == "test":
            numbers = range(min(n, options.test_cap))
        else:
            name = os.path.basename(self.path)
            order = sorted(range(n), key=lambda i: hash64(options.seed, name, i))
            kept = min(options.validation_cap, max(1, n // 10), n - 1)
            train = order[kept:][: options.train_cap]
            numbers = sorted(order[:kept] if split == "validation" else train)
        for number in numbers:
            yield subtask, number

    def render(
        self, item: tuple[Mapping[str, Any], int], split: str, index: int, seed: int
    ) -> dict[str, str]:
        subtask, number = item
        instance = subtask["Instances"][number]
        outputs = _outputs(instance, f"{self.path}: Instances[{number}]")
        draws = Draws(seed, os.path.basename(self.path), number)
        return {
            "inputs": prompt(subtask, instance["input"], self._options),
            "targets": draws.choice(outputs) if split == "train" else outputs[0],
            "references": json.dumps(outputs, ensure_ascii=False),
        }


def prompt(subtask: Mapping[str, Any], text: str, options: V1Options) -> str:
    """Returns the input of an instance: instructions, examples while they fit, the text."""
    head = ""
    for part in options.parts:
        value = str(subtask.get(part) or "").strip()
        if value not in ("", "-"):  # The release writes "-" for nothing.
            head += f"{part}: {value}\n"
    tail = f"input: {text.strip()}\noutput: "
    examples = subtask.get("Examples") or {}
    shown = ""
    for kind, limit in (
        ("Negative", options.negative_examples),
        ("Positive", options.positive_examples),
    ):
        given = [e for e in examples.get(f"{kind} Examples") or [] if isinstance(e, dict)]
        for k, example in enumerate(given[:limit], 1):
            more = f"{kind} Example {k} -\n"
            for key in ("input", "output", "reason"):
                value = str(example.get(key) or "").strip()
                more += f"{key}: {value}\n" if value not in ("", "-") else ""
            if len(head) + len(shown) + len(more) + len(tail) > options.max_characters:
                break
            shown += more
    return head + shown + tail


def load_subtask(path: str) -> dict[str, Any]:
    """Reads a subtask's file.

    Raises:
      UserError: not JSON, or no definition or instances; names the file and the field.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            value = json.load(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: column {error.colno}: {error.msg}") from None
    if not isinstance(value, dict) or not isinstance(value.get("Definition"), str):
        raise UserError(f"{path}: Definition is missing; expected the first release's schema")
    instances = value.get("Instances")
    if not isinstance(instances, list) or not instances:
        raise UserError(f"{path}: Instances: expected at least one instance")
    for number, instance in enumerate(instances):
        if not isinstance(instance, dict) or not isinstance(instance.get("input"), str):
            raise UserError(f"{path}: Instances[{number}]: input is missing; expected a string")
    return value


def _outputs(instance: Mapping[str, Any], where: str) -> list[str]:
    outputs = instance.get("output")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    valid = isinstance(outputs, list) and all(isinstance(output, str) for output in outputs)
    if not valid or not outputs:
        raise UserError(f"{where}: output: expected at least one string, and only strings")
    return list(dict.fromkeys(outputs))


def register(root: str, options: V1Options | None = None) -> None:
    """Registers the subtasks below a folder and their mixtures.

    Raises:
      UserError: no such folder, no subtask in it, or a list that names none of them.
    """
    if not root or not os.path.isdir(root):
        raise UserError(
            f"data.root {root!r}: not a folder; expected Natural Instructions v1.0 (the subtask*."
            "json files of github.com/allenai/natural-instructions-v1, or a folder that holds them)"
        )
    escaped = glob.escape(root)
    paths = glob.glob(f"{escaped}/subtask*.json") + glob.glob(f"{escaped}/*/subtask*.json")
    if not paths:
        raise UserError(
            f"{root}: no subtask*.json in it or its folders; get them from "
            "github.com/allenai/natural-instructions-v1"
        )
    listed = _held_out(os.path.join(root, "splits", "v1", "test_tasks.txt"))
    names: dict[bool, list[str]] = {False: [], True: []}
    for path in sorted(paths, key=os.path.basename):
        stem = os.path.basename(path).removesuffix(".json")
        held_out = stem in listed
        source = NaturalInstructionsV1Source(path, held_out=held_out, options=options)
        name = f"{PREFIX}_{task_name(stem)}"
        register_task(name, source, metric_fns=METRICS)
        names[held_out].append(name)
    if listed and not names[True]:
        raise UserError(f"{root}: none of the subtasks of splits/v1/test_tasks.txt is there")
    register_mixture(f"{PREFIX}_train", names[False])
    if names[True]:
        register_mixture(f"{PREFIX}_heldout", [(name, 1.0) for name in names[True]])


def _held_out(path: str) -> set[str]:
    if not os.path.isfile(path):
        return set()
    with open(path, encoding="utf-8") as file:
        return {line.strip() for line in file if line.strip()}
