"""Reward functions: those that have a name here, and those of a user.

A function takes (completion, row), the text and the fields of the prompt's row, and returns a
number. This module must not import JAX: a process of its own calls the functions.
"""

import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ift_jax.config.systems import append_working_folder
from ift_jax.errors import UserError, did_you_mean, of_users_code, offered
from ift_jax.evaluation.benchmarks.gsm8k import (
    INVALID,
    comparable,
    flexible_answer,
    strict_answer,
)
from ift_jax.evaluation.benchmarks.instruction_checks.instructions import (
    arguments_of,
    followed,
    instruction_error,
)
from ift_jax.io.files import file_digest

Row = Mapping[str, Any]
Function = Callable[[str, Row], Any]

_REGEX = "regex:"
# Where a row has its right answer, unless a flag names the field.
ANSWER_FIELDS = ("targets", "answer", "output", "completion")
# The published names of IFEval's two fields.
_INSTRUCTIONS, _ARGUMENTS = "instruction_id_list", "kwargs"
_EXPECTED = "FILE.py:FUNCTION or MODULE:FUNCTION"


class FunctionSpec(NamedTuple):
    """Which function gives rewards.

    Attributes:
        name: "exact-match", "number", "ifeval", "regex:PATTERN", "file.py:function", or
            "module:function".
        answer_field: The field of a row with its right answer; "": the first of `ANSWER_FIELDS`.
    """

    name: str
    answer_field: str = ""

    @property
    def is_verifier(self) -> bool:
        """Whether 1 is right and less is wrong: all but a user's function."""
        return self.name in BUILT_IN or self.name.startswith(_REGEX)

    def needs_answer(self) -> bool:
        """Whether it compares with a row's right answer."""
        return self.name in (_EXACT_MATCH, _NUMBER)


def _exact_match(completion: str, answer: str) -> bool:
    return completion.strip() == answer.strip()


def _same_number(completion: str, answer: str) -> bool:
    """Compare the final numbers as GSM8K does: the one after `####`, else the last one."""
    found = strict_answer(completion)
    if found == INVALID:
        found = flexible_answer(completion)
    wanted = strict_answer(answer)
    if wanted == INVALID:
        wanted = flexible_answer(answer)
    return comparable(found) == comparable(wanted)


_EXACT_MATCH, _NUMBER, _IFEVAL = "exact-match", "number", "ifeval"
_COMPARISONS: Mapping[str, Callable[[str, str], bool]] = {
    _EXACT_MATCH: _exact_match,
    _NUMBER: _same_number,
}
BUILT_IN = (_EXACT_MATCH, _NUMBER, _IFEVAL)


def load_function(spec: FunctionSpec) -> Function:
    """Return the function of a name.

    A user's file is executed; a module is imported, from the working folder too.

    Raises:
        UserError: There is no such function, its code raises an exception while it is loaded, or
            it does not take (completion, row).
    """
    if spec.name in _COMPARISONS:
        return functools.partial(_compared, _COMPARISONS[spec.name], spec.answer_field)
    if spec.name == _IFEVAL:
        return _share_followed
    if spec.name.startswith(_REGEX):
        pattern = _compiled(spec.name.removeprefix(_REGEX))
        return lambda completion, row: float(pattern.search(completion) is not None)
    return _users_function(spec.name)


def check_row(spec: FunctionSpec, row: Row, where: str) -> None:
    """Check that a row has what a function with a name here reads.

    Raises:
        UserError: It has not.
    """
    if spec.needs_answer():
        _answer(row, spec.answer_field, where)
    if spec.name == _IFEVAL:
        names, arguments = _instructions(row, where)
        for name, kwargs in zip(names, arguments, strict=True):
            if error := instruction_error(name, kwargs):
                raise UserError(f"{where}: {error}")
        try:
            # A check of letters' case looks for the package only where all letters have that case.
            for text in ("any text will do.", "ANY TEXT WILL DO."):
                followed(text, names, arguments)
        except ModuleNotFoundError as error:
            raise UserError(
                f"{where}: its instructions need the package {error.name}; `launch/setup.sh "
                "ifeval` (the extra ifeval) installs it"
            ) from error


def source_digest(spec: FunctionSpec) -> str:
    """Return SHA-256 (hex) of the file that defines a user's function; "" for one of ours."""
    if spec.is_verifier:
        return ""
    source = spec.name.rpartition(":")[0]
    if not source.endswith(".py"):
        found = importlib.util.find_spec(source)
        source = found.origin or "" if found else ""
    return file_digest(source) if os.path.isfile(source) else ""


def _compared(
    compare: Callable[[str, str], bool], answer_field: str, completion: str, row: Row
) -> float:
    return float(compare(completion, _answer(row, answer_field, "the row")))


def _answer(row: Row, field: str, where: str) -> str:
    """Return the right answer of a row."""
    names = (field,) if field else ANSWER_FIELDS
    name = next((name for name in names if name in row), None)
    if name is None and not field and (of_turns := _last_answer(row)) is not None:
        return of_turns
    if name is None:
        there = ", ".join(map(str, row)) or "none"
        expected = repr(field) if field else " or ".join(map(repr, ANSWER_FIELDS))
        raise UserError(
            f"{where}: no right answer to compare with; expected a field {expected} "
            f"(--answer-field names another); there: {there}"
        )
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(
            f"{where}: field {name!r}: expected a right answer, a text or a number; found "
            f"{type(value).__name__}"
        )
    return str(value)


def _last_answer(row: Row) -> str | None:
    """Return the text of an assistant's turn that ends a row's messages; None if none does."""
    turns = row.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    if not isinstance(last, Mapping) or last.get("role") != "assistant":
        return None
    text = last.get("content")
    return text if isinstance(text, str) else None


def _instructions(row: Row, where: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the ids of a row's instructions, and the arguments of each."""
    names = row.get(_INSTRUCTIONS)
    kwargs = None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        kwargs = arguments_of(row.get(_ARGUMENTS), len(names))
    if not isinstance(names, list) or kwargs is None:
        raise UserError(
            f"{where}: expected IFEval's fields {_INSTRUCTIONS!r}, a list of ids, and "
            f"{_ARGUMENTS!r}, a list of as many objects"
        )
    return names, kwargs


def _share_followed(completion: str, row: Row) -> float:
    """The share of a row's instructions that a completion follows, by IFEval's strict rule."""
    verdicts = followed(completion, *_instructions(row, "the row"))
    return sum(verdicts) / len(verdicts)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"--reward {_REGEX}{pattern}: is no pattern ({error})") from error


def _users_function(name: str) -> Function:
    source, _, function_name = name.rpartition(":")
    if not source or not function_name.isidentifier():
        near = did_you_mean(name, BUILT_IN)
        raise UserError(
            f"--reward {name}: no such reward{near}; expected {', '.join(BUILT_IN)}, "
            f"{_REGEX}PATTERN, {_EXPECTED}"
        )
    what = f"reward function {name}"
    with of_users_code(what):
        module = _module_of_file(source) if source.endswith(".py") else _module(source)
    function = getattr(module, function_name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        hint = offered(function_name, there)
        raise UserError(f"--reward {name}: {source} has no function {function_name!r}{hint}")
    _check_parameters(what, function)
    return function


def _module_of_file(path: str) -> Any:
    if not os.path.isfile(path):
        raise UserError(f"--reward: no such file: {path}; expected {_EXPECTED}")
    sys.path.insert(0, str(Path(path).resolve().parent))  # For the modules beside it.
    spec = importlib.util.spec_from_file_location(f"reward_of_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses and pickle look for it there.
    spec.loader.exec_module(module)
    return module


def _module(name: str) -> Any:
    append_working_folder()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(f"--reward: no module {name!r}; expected {_EXPECTED}") from None
        raise


def _check_parameters(what: str, function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind("", {})
    except TypeError as error:
        raise UserError(f"{what}: expected a function of (completion, row); {error}") from None
    except ValueError:
        return  # A function of C has no signature to look at.
