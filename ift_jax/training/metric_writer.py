"""Metrics of a run on disk: JSON lines, and the same as TensorBoard events."""

import json
import os
from pathlib import Path
from typing import Any

import jax

from ift_jax.errors import UserError
from ift_jax.io.files import write_atomically
from ift_jax.io.json_reader import json_object, parse_json
from ift_jax.training.event_file import EventFile


def drop_later_lines(path: str, step: int) -> None:
    """Remove the lines of steps after `step` from a JSON-lines file; step 0 removes all lines.

    They come from work that a killed run did after its last checkpoint, and will be written
    again. An incomplete line at the end is removed too.
    """
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        lines = [line for line in file if line.endswith(b"\n")]
    kept = [line for line in lines if step and _step(line, path) <= step]
    write_atomically(Path(path), b"".join(kept))


def _step(line: bytes, path: str) -> int:
    record = json_object(parse_json(line, path), path)
    step = record.get("step")
    if type(step) is not int:
        raise UserError(f"{path}: a line has the step {step!r}; expected a whole number")
    return step


class MetricWriter:
    """Appends records to `metrics.jsonl`, and their numbers to a TensorBoard event file."""

    def __init__(self, workdir: str, step: int):
        """Open the files.

        Args:
            workdir: The local folder of the files.
            step: The step that the run starts or resumes at; what `metrics.jsonl` has from later
                steps is dropped.
        """
        path = os.path.join(workdir, "metrics.jsonl")
        drop_later_lines(path, step)
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held for the run.
        self._events = EventFile(os.path.join(workdir, "tensorboard"), step)

    def write(self, record: dict[str, Any]) -> None:
        """Write one record.

        Args:
            record: JSON values by name, "step" among them. Nested ones go to TensorBoard as
                `outer/inner`; None is left out there.
        """
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        scalars = {
            jax.tree_util.keystr(path, simple=True, separator="/"): value
            for path, value in jax.tree_util.tree_leaves_with_path(record)
        }
        step = scalars.pop("step")
        self._events.write_scalars(step, scalars)

    def close(self) -> None:
        """Close both files."""
        self._lines.close()
        self._events.close()
