"""Tasks that people wrote, with which Self-Instruct begins."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind, json_object
from ift_jax.sources.json_lines import read_lines

MOST_SHOWN_WORDS = 60  # Longer tasks are not shown with their instances.


class Instance(NamedTuple):
    """One input of a task, "" if it needs none, with its output."""

    input: str
    output: str


class SeedTask(NamedTuple):
    """A task that a person wrote."""

    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool = False

    @property
    def n_words(self) -> int:
        """The words of everything in it."""
        texts = [self.instruction, *(text for instance in self.instances for text in instance)]
        return sum(len(text.split()) for text in texts)


def short_seeds(seeds: Sequence[SeedTask], least: int) -> list[SeedTask]:
    """Return the tasks that a prompt may show as a whole; the `least` shortest if few are short.

    Args:
        seeds: Seed tasks.
        least: How many a prompt shows.
    """
    by_length = sorted(seeds, key=lambda seed: seed.n_words)
    short = [seed for seed in by_length if seed.n_words <= MOST_SHOWN_WORDS]
    return short if len(short) >= least else by_length[:least]


def read_seeds(path: str, least: int) -> list[SeedTask]:
    """Read seed tasks from JSON lines.

    A line is {"instruction", "instances": [{"input", "output"}, ...], "is_classification"}, as
    Self-Instruct's seed_tasks.jsonl has them, or Alpaca's {"instruction", "input", "output"}.

    Args:
        path: The file, plain or gzip.
        least: How many tasks are needed.

    Raises:
        UserError: The file cannot be read or holds too few tasks, or a line is none; names file,
            line and field.
    """
    try:
        seeds = [_seed(line.parse(), line.place) for line in read_lines(path)]
    except OSError as error:
        raise UserError(f"--seeds {path}: cannot be read ({error.strerror or error})") from error
    if len(seeds) < least:
        raise UserError(f"--seeds {path}: holds {len(seeds)} tasks; expected at least {least}")
    return seeds


def _seed(fields: Mapping[str, Any], where: str) -> SeedTask:
    instruction = _text(fields, "instruction", where)
    instances: Any = fields.get("instances")
    if instances is None:
        instances = [{"input": fields.get("input", ""), "output": fields.get("output")}]
    if not isinstance(instances, list) or not instances:
        raise UserError(
            f"{where}: field 'instances': expected a list of at least one object with 'input' and "
            f"'output'; found {json_kind(instances) if instances else 'none'}"
        )
    is_classification = fields.get("is_classification", False)
    if not isinstance(is_classification, bool):
        raise UserError(
            f"{where}: field 'is_classification': expected true or false; found "
            f"{json_kind(is_classification)}"
        )
    return SeedTask(instruction, tuple(_instances(instances, where)), is_classification)


def _instances(instances: Sequence[Any], where: str) -> list[Instance]:
    read = []
    for i, instance in enumerate(instances):
        place = f"{where}: instances[{i}]"
        fields = json_object(instance, place)
        read.append(
            Instance(
                _text({"input": "", **fields}, "input", place, may_be_empty=True),
                _text(fields, "output", place),
            )
        )
    return read


def _text(fields: Mapping[str, Any], name: str, where: str, *, may_be_empty: bool = False) -> str:
    """Return a field that must be a text, without the white space around it."""
    value = fields.get(name)
    if not isinstance(value, str):
        found = json_kind(value) if name in fields else f"fields {', '.join(map(repr, fields))}"
        raise UserError(f"{where}: field {name!r}: expected a text; found {found}")
    if not value.strip() and not may_be_empty:
        raise UserError(f"{where}: field {name!r}: expected a text; found an empty one")
    return value.strip()
