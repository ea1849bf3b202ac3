"""Metrics of a run: JSON lines, and the same as TensorBoard events and for trackers."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any, Self

import jax

from ift_jax.config.schema import Config
from ift_jax.errors import WriteError
from ift_jax.evaluation.metric_values import without_nan
from ift_jax.io.write_errors import write_errors
from ift_jax.training.event_file import EventFile
from ift_jax.training.step_lines import keep_lines_until
from ift_jax.training.trackers import Tracker, closed_on_failure, finite, open_trackers

METRICS_FILE = "metrics.jsonl"


def scalars_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a record by name, nested ones as `outer/inner`, without None."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): value
        for path, value in jax.tree_util.tree_leaves_with_path(record)
    }


class MetricWriter:
    """Appends records to `metrics.jsonl`, and their numbers to a TensorBoard event file.

    Attributes:
        names_at_start: The names of all that `metrics.jsonl` has of the step that the run resumes
            at. What is due at this step and missing here was cut off by a kill or a stop.
    """

    def __init__(self, workdir: str, step: int, trackers: Sequence[Tracker] = ()):
        """Open the files.

        Args:
            workdir: The local folder of the files.
            step: The step that the run starts or resumes at; what `metrics.jsonl` has from later
                steps is dropped.
            trackers: Receive the same numbers, and are closed with the files.
        """
        self._path = path = os.path.join(workdir, METRICS_FILE)
        kept = keep_lines_until(path, step)
        self.names_at_start = {name for line in kept if line["step"] == step for name in line}
        with write_errors(path):
            self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held for the run.
        self._events = EventFile(os.path.join(workdir, "tensorboard"), step)
        self._trackers = trackers

    @classmethod
    def of_run(cls, config: Config, workdir: str, step: int) -> Self:
        """Open the files of a run, and its trackers; arguments as those of the constructor."""
        values = dataclasses.asdict(config)
        trackers = open_trackers(config.train.track, workdir, values, resumes=step > 0)
        with closed_on_failure(trackers):
            return cls(workdir, step, trackers)

    def write(self, record: dict[str, Any]) -> None:
        """Write one record.

        Args:
            record: JSON values by name, "step" among them. A number that is not finite becomes
                null. Nested values go to TensorBoard as `outer/inner`; None is left out there.

        Raises:
            WriteError: A file cannot be written, or is no longer there.
        """
        self._check_still_there()
        record = without_nan(record)
        line = json.dumps(record, allow_nan=False) + "\n"
        with write_errors(self._path):
            self._lines.write(line)
            self._lines.flush()
        scalars = scalars_of(record)
        step = scalars.pop("step")
        self._events.write_scalars(step, scalars)
        for tracker in self._trackers:
            tracker.log(step, finite(scalars))

    def _check_still_there(self) -> None:
        """Raise a WriteError if the file was deleted: writing to it would still succeed."""
        with write_errors(self._path):
            now = os.stat(self._path)
        if not os.path.samestat(now, os.fstat(self._lines.fileno())):
            raise WriteError(f"{self._path}: was replaced while the run was writing to it")

    def sync(self) -> None:
        """Make the lines durable, before a checkpoint makes their steps part of the past."""
        with write_errors(self._path):
            os.fsync(self._lines.fileno())

    def close(self, *, failed: bool = False) -> None:
        """Close the files and the trackers, which are told if an error ended the run."""
        with contextlib.ExitStack() as stack:  # One that cannot be closed leaves no other open.
            for tracker in reversed(self._trackers):
                stack.callback(tracker.close, failed=failed)
            stack.callback(self._events.close)
            stack.callback(self._lines.close)
