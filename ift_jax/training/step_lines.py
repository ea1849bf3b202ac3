"""JSON-lines files of a run with one or more lines for each of some steps."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.files import write_atomically
from ift_jax.io.json_reader import json_object, parse_json

Line = dict[str, Any]


def keep_lines(path: str, is_kept: Callable[[int], bool]) -> list[Line]:
    """Remove the lines of some steps, and an incomplete line at the end, from a file.

    Args:
        path: The file, which need not exist.
        is_kept: Whether the lines of a step stay.

    Returns:
        The lines that stay.

    Raises:
        UserError: A line is no JSON object with a step.
    """
    if not os.path.exists(path):
        return []
    complete = _complete_lines(path)
    lines = _parsed(complete, path)
    kept = [i for i, line in enumerate(lines) if is_kept(line["step"])]
    write_atomically(Path(path), b"".join(complete[i] for i in kept))
    return [lines[i] for i in kept]


def read_lines(path: str) -> list[Line]:
    """Return the complete lines of a file; none if there is no such file.

    Raises:
        UserError: A line is no JSON object with a step.
    """
    return _parsed(_complete_lines(path), path) if os.path.exists(path) else []


def _complete_lines(path: str) -> list[bytes]:
    with open(path, "rb") as file:
        return [line for line in file if line.endswith(b"\n")]


def _parsed(lines: Sequence[bytes], path: str) -> list[Line]:
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _parse(content: bytes, where: str) -> Line:
    line = json_object(parse_json(content, where), where)
    if type(line.get("step")) is not int:
        raise UserError(f"{where}: has the step {line.get('step')!r}; expected a whole number")
    return line


def keep_lines_until(path: str, step: int) -> list[Line]:
    """Remove what a killed run wrote after its last checkpoint, because it is written again.

    Args:
        path: The file.
        step: The step that the run starts or resumes at. A run that starts keeps no line at all.

    Returns:
        The lines that stay.
    """
    if not step:
        if os.path.exists(path):
            write_atomically(Path(path), b"")
        return []
    return keep_lines(path, lambda line_step: line_step <= step)
