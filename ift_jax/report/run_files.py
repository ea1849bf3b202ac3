"""What a run has written so far, read for a page."""

import os
from typing import Any, NamedTuple

from ift_jax.checkpoint.run_description import RunRecord
from ift_jax.config import files as config_files
from ift_jax.errors import UserError
from ift_jax.evaluation.recorded_answers import ANSWERS_FILE, RecordedAnswers, read_answers
from ift_jax.io.json_reader import json_object, parse_json, read_json_object

Record = dict[str, Any]

CONFIG_FILE = "config.json"
REPORT_FILE = "report.html"
METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
EVALUATION_FILE = "evaluation.json"
BENCHMARKS_FILE = os.path.join("benchmarks", "results.json")


class RunFiles(NamedTuple):
    """The files of a run.

    Attributes:
        path: The workdir.
        name: What plots and tables call it.
        config: The run's config by dotted names.
        record: What it reads, and whether it is complete.
        metrics: The records of `metrics.jsonl`, in their order.
        samples: The records of `samples.jsonl`.
        evaluations: The records of `evaluations.jsonl`: scores while the run trains.
        scores: The contents of `evaluation.json`; empty before the run has evaluated.
        answers: The scored answers; None before the run has evaluated.
        benchmarks: What `ift eval --benchmarks` found last; empty if it was never run.
    """

    path: str
    name: str
    config: dict[str, Any]
    record: RunRecord
    metrics: list[Record]
    samples: list[Record]
    evaluations: list[Record]
    scores: dict[str, Any]
    answers: RecordedAnswers | None
    benchmarks: dict[str, Any]

    def points(self, name: str) -> tuple[list[int], list[float | None]]:
        """Return the steps and values of a number in the metrics; `outer/inner` for a nested one.

        A value is None where the number was not finite.
        """
        steps: list[int] = []
        values: list[float | None] = []
        for record in self.metrics:
            found = _find(record, name)
            if found is not _MISSING:
                steps.append(record["step"])
                values.append(found)
        return steps, values

    @property
    def goodput(self) -> dict[str, float]:
        """Return the share of the time so far by kind of work; nothing if no step was logged."""
        shares = [_find(record, "time/goodput") for record in self.metrics]
        return next((of_kinds for of_kinds in reversed(shares) if of_kinds is not _MISSING), {})

    def tasks_of(self, name: str) -> list[str]:
        """Return the names below a nested entry of the metrics, such as "eval_task_loss"."""
        tasks: dict[str, None] = {}
        for record in self.metrics:
            tasks |= dict.fromkeys(record.get(name) or {})
        return list(tasks)


_MISSING = object()


def _find(record: Record, name: str) -> Any:
    """Return a value by its path; the names of tasks may hold slashes themselves."""
    if name in record:
        return record[name]
    outer, _, inner = name.partition("/")
    of_outer = record.get(outer)
    return _find(of_outer, inner) if inner and isinstance(of_outer, dict) else _MISSING


def read_run(path: str, name: str) -> RunFiles:
    """Read a workdir, of a run that may still be going on.

    Args:
        path: The local workdir.
        name: What plots and tables call the run.

    Raises:
        UserError: There is no run, or a file is not what a run writes.
    """
    config_file = os.path.join(path, CONFIG_FILE)
    if not os.path.exists(config_file):
        raise UserError(f"{path}: no {CONFIG_FILE} here; expected the workdir of a run")
    values = read_json_object(config_file)
    if not config_files.is_of_run(values):
        raise UserError(f"{path}: is not the workdir of a run; expected a folder that train wrote")
    config_files.from_json(config_file)  # Refuses what no run of this version writes.
    scores_file = os.path.join(path, EVALUATION_FILE)
    answers_file = os.path.join(path, ANSWERS_FILE)
    benchmarks = os.path.join(path, BENCHMARKS_FILE)
    has_answers = os.path.exists(answers_file) and os.path.getsize(answers_file) > 0
    return RunFiles(
        path=path,
        name=name,
        config=config_files.flat(values),
        record=RunRecord.read(path),
        metrics=read_lines(os.path.join(path, METRICS_FILE)),
        samples=read_lines(os.path.join(path, SAMPLES_FILE)),
        evaluations=read_lines(os.path.join(path, EVALUATIONS_FILE)),
        scores=read_json_object(scores_file) if os.path.exists(scores_file) else {},
        answers=read_answers(answers_file) if has_answers else None,
        benchmarks=read_json_object(benchmarks) if os.path.exists(benchmarks) else {},
    )


def read_lines(path: str) -> list[Record]:
    """Return the records of a file of JSON lines; none if there is no such file.

    A last line without an end is left out: a run may be writing it.
    """
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        return [
            json_object(parse_json(line, f"{path}:{number}"), f"{path}:{number}")
            for number, line in enumerate(file, 1)
            if line.endswith(b"\n")
        ]
