"""Natural Instructions task files, read and checked.

A task of Super-NaturalInstructions (Wang et al. 2022, arXiv:2204.07705) is a JSON file with a
definition, positive and negative examples, and instances with one or more right outputs. The
first release has another schema, which `tasks.natural_instructions.v1` reads with the functions
of this module.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.files import file_state
from ift_jax.io.json_reader import read_json_file

_KEPT = 4  # Parsed files, of some megabytes each.


@dataclasses.dataclass(frozen=True)
class Example:
    """An example or an instance; `outputs` holds every right answer, at least one."""

    input: str
    outputs: tuple[str, ...]
    explanation: str = ""


@dataclasses.dataclass(frozen=True)
class InstructionTask:
    """A parsed task file; `category` is the first one that the file names, or ""."""

    name: str
    path: str
    definition: str
    positive_examples: tuple[Example, ...]
    instances: tuple[Example, ...]
    negative_examples: tuple[Example, ...] = ()
    category: str = ""


class Summary(NamedTuple):
    """What is asked of every task file before and after its records are read."""

    n_instances: int
    category: str


def load_task(path: str) -> InstructionTask:
    """Read a task file; preparing does so several times in a row, which parses it once.

    Raises:
        UserError: The file is not JSON, or a field is missing or of the wrong kind; the message
            names the file, the instance by number and the field.
    """
    return _load_task(path, file_state(path))


def summary(path: str) -> Summary:
    """Return what is known of a task file, which is read once; the errors are `load_task`'s."""
    return _summary(path, file_state(path))


@functools.cache
def _summary(path: str, state: tuple[int, int] | None) -> Summary:
    task = _load_task(path, state)
    return Summary(len(task.instances), task.category)


@functools.lru_cache(maxsize=_KEPT)
def _load_task(path: str, state: tuple[int, int] | None) -> InstructionTask:
    """Read a task file in the given state."""
    value = read_json_file(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object with Definition and Instances")
    definition = _definition(value, path)
    instances = _examples(value, "Instances", path)
    if not instances:
        raise UserError(f"{path}: Instances is empty; expected at least one instance")
    return InstructionTask(
        name=task_stem(path),
        path=path,
        definition=definition,
        positive_examples=_examples(value, "Positive Examples", path),
        instances=instances,
        negative_examples=_usable_examples(value.get("Negative Examples")),
        category=_category(value),
    )


def read_list(path: str) -> list[str]:
    """Return the names in a list of tasks, one per line, each once."""
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    return list(dict.fromkeys(line for line in lines if line))


def task_stem(path: str) -> str:
    """Return the name of a task file without folder and ending, which is the task's name."""
    return os.path.basename(path).removesuffix(".json")


def checked_outputs(outputs: Any, where: str) -> tuple[str, ...]:
    """Return an instance's right outputs, each once.

    Args:
        outputs: The instance's field "output", a string or a list of strings.
        where: The file and the instance, for the error.

    Raises:
        UserError: There is no output, or one that is not a string.
    """
    if isinstance(outputs, str):
        return (outputs,)
    is_list = isinstance(outputs, list) and all(isinstance(output, str) for output in outputs)
    if not is_list or not outputs:
        raise UserError(f"{where}: output: expected at least one string, and only strings")
    return tuple(dict.fromkeys(outputs))


def _definition(task: Mapping[str, Any], path: str) -> str:
    definition = _get(task, "Definition", path, "a string or a list of strings", str, list)
    if isinstance(definition, str):
        return definition
    if not definition or not isinstance(definition[0], str):
        raise UserError(f"{path}: Definition: expected at least one string")
    return definition[0]  # Tk-Instruct uses the first.


def _category(task: Mapping[str, Any]) -> str:
    categories = task.get("Categories")
    if not isinstance(categories, list) or not categories:
        return ""
    first = categories[0]
    return first if isinstance(first, str) else ""


def _examples(task: Mapping[str, Any], key: str, path: str) -> tuple[Example, ...]:
    result = []
    for number, value in enumerate(_get(task, key, path, "a list of objects", list)):
        where = f"{path}: {key}[{number}]"
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected an object with input and output")
        text = _get(value, "input", where, "a string", str)
        outputs = _get(value, "output", where, "a string or a list of strings", str, list)
        explanation = value.get("explanation")
        if not isinstance(explanation, str):
            explanation = ""
        result.append(Example(text, checked_outputs(outputs, where), explanation))
    return tuple(result)


def _usable_examples(values: Any) -> tuple[Example, ...]:
    """Return the negative examples with a text; many files hold none, or "-" in its place."""
    if not isinstance(values, list):
        return ()
    result = []
    for value in values:
        fields = value if isinstance(value, dict) else {}
        text = _stripped(fields.get("input"))
        output = _stripped(fields.get("output"))
        if text not in ("", "-") and output not in ("", "-"):
            result.append(Example(text, (output,), _stripped(fields.get("explanation"))))
    return tuple(result)


def _stripped(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _get(value: Mapping[str, Any], key: str, where: str, expected: str, *kinds: type) -> Any:
    if key not in value:
        raise UserError(f"{where}: {key} is missing; expected {expected}")
    if not isinstance(value[key], kinds):
        raise UserError(f"{where}: {key} is a {type(value[key]).__name__}; expected {expected}")
    return value[key]
