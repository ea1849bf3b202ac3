"""Natural Instructions task files, read and checked.

Wang et al. 2022, Super-NaturalInstructions (arXiv:2204.07705): a task is a JSON file with a
definition, positive and negative examples, and instances with one or more right outputs.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from ift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Example:
    """A demonstration or an instance; `outputs` holds every right answer, at least one."""

    input: str
    outputs: tuple[str, ...]
    explanation: str = ""


@dataclasses.dataclass(frozen=True)
class InstructionTask:
    """A parsed task file; `category` is its first one, "" where the file names none."""

    name: str
    path: str
    definition: str
    positive_examples: tuple[Example, ...]
    instances: tuple[Example, ...]
    negative_examples: tuple[Example, ...] = ()
    category: str = ""


def load_task(path: str) -> InstructionTask:
    """Reads a task file.

    Raises:
      UserError: it is not JSON, or a field is missing or of the wrong kind; the message names
        the file, the instance by number and the field.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            value = json.load(file)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: column {error.colno}: {error.msg}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object with Definition and Instances")
    name = os.path.basename(path).removesuffix(".json")
    definition = _get(value, "Definition", path, "a string or a list of strings", str, list)
    if isinstance(definition, list):  # The first is the one that Tk-Instruct uses.
        if not definition or not isinstance(definition[0], str):
            raise UserError(f"{path}: Definition: expected at least one string")
        definition = definition[0]
    instances = _examples(value, "Instances", path)
    if not instances:
        raise UserError(f"{path}: Instances is empty; expected at least one instance")
    positive = _examples(value, "Positive Examples", path)
    negative = _usable_examples(value.get("Negative Examples"))
    categories = value.get("Categories")
    first = categories[0] if isinstance(categories, list) and categories else ""
    category = first if isinstance(first, str) else ""
    return InstructionTask(name, path, definition, positive, instances, negative, category)


def _examples(task: Mapping[str, Any], key: str, path: str) -> tuple[Example, ...]:
    result = []
    for number, value in enumerate(_get(task, key, path, "a list of objects", list)):
        where = f"{path}: {key}[{number}]"
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected an object with input and output")
        text = _get(value, "input", where, "a string", str)
        outputs = _get(value, "output", where, "a string or a list of strings", str, list)
        outputs = [outputs] if isinstance(outputs, str) else outputs
        if not outputs or not all(isinstance(output, str) for output in outputs):
            raise UserError(f"{where}: output: expected at least one string, and only strings")
        explanation = value.get("explanation")
        explanation = explanation if isinstance(explanation, str) else ""
        result.append(Example(text, tuple(dict.fromkeys(outputs)), explanation))
    return tuple(result)


def _usable_examples(values: Any) -> tuple[Example, ...]:
    """The negative examples that say something: contributors leave them out, or write "-"."""
    result = []
    for value in values if isinstance(values, list) else []:
        fields = value if isinstance(value, dict) else {}
        texts = [fields.get(key) for key in ("input", "output", "explanation")]
        text, output, explanation = (t.strip() if isinstance(t, str) else "" for t in texts)
        if text not in ("", "-") and output not in ("", "-"):
            result.append(Example(text, (output,), explanation))
    return tuple(result)


def _get(value: Mapping[str, Any], key: str, where: str, expected: str, *kinds: type) -> Any:
    if key not in value:
        raise UserError(f"{where}: {key} is missing; expected {expected}")
    if not isinstance(value[key], kinds):
        raise UserError(f"{where}: {key} is a {type(value[key]).__name__}; expected {expected}")
    return value[key]
