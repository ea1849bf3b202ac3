"""Scored answers that an evaluation left on disk, one number an example and metric."""

import glob
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.files import json_digest
from ift_jax.io.json_reader import parse_json, read_json_object
from ift_jax.metrics import exact_match

ANSWERS_FILE = "answers.jsonl"

# The index of an example, which of those with this index it is, and a digest of its references: two
# files may hold other examples under the same task and index, which are no pairs.
Key = tuple[int, int, str]
Scores = dict[str, dict[str, dict[Key, float]]]  # By metric, task and example.


class RecordedAnswers(NamedTuple):
    """The scores of one model's answers.

    Attributes:
        path: Where they were read: a run's workdir, or a file of `ift eval --output`.
        scores: metric -> task -> example -> score. Every answer has "exact_match"; the
            others are the metrics whose score is a mean over examples.
    """

    path: str
    scores: Scores


def read_answers(path: str) -> RecordedAnswers:
    """Read the answers of a run, or of an evaluation.

    Args:
        path: A workdir whose run evaluated at its end, or a file that `ift eval --output` wrote.

    Raises:
        UserError: There is no such file, or it is not what an evaluation writes.
    """
    file = os.path.join(path, ANSWERS_FILE) if os.path.isdir(path) else path
    if not os.path.exists(file):
        raise UserError(f"{file}: no such file; expected {_expected(path)}")
    scores: Scores = {}
    seen: Counter[tuple[str, int]] = Counter()
    for where, answer in _answers(file):
        task, index, values = _checked(answer, where)
        key = (index, seen[task, index], json_digest(answer["references"]))
        seen[task, index] += 1
        for metric, value in values.items():
            scores.setdefault(metric, {}).setdefault(task, {})[key] = value
    if not scores:
        raise UserError(f"{file}: holds no answers")
    return RecordedAnswers(path, scores)


def _expected(path: str) -> str:
    """Say what would do in place of a path that is not there."""
    if os.path.isdir(path) and glob.glob(os.path.join(path, "*")):
        return f"a run that evaluates at its end, or `ift eval --workdir {path} --output FILE`"
    return "a run's workdir, or a file that `ift eval --output` wrote"


def _answers(file: str) -> Iterator[tuple[str, Any]]:
    """Yield answers, each with its place for messages."""
    if file.endswith(".jsonl"):
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{file}:{number}", parse_json(line, f"{file}:{number}")
        return
    answers = read_json_object(file).get("answers")
    if not isinstance(answers, list):
        raise UserError(f"{file}: no answers in it; expected a file that `ift eval --output` wrote")
    for number, answer in enumerate(answers):
        yield f"{file}: answers[{number}]", answer


def _checked(answer: Any, where: str) -> tuple[str, int, dict[str, float]]:
    """Return the task, index and scores of an answer."""
    try:
        references: Sequence[str] = answer["references"]
        given: Mapping[str, float] = answer.get("metrics", {})
        right = exact_match([references], [answer["answer"]])
        values = {name: float(value) for name, value in given.items() if value is not None}
        for name, value in values.items():
            if not math.isfinite(value):
                raise UserError(f"{where}: metric {name}: {value}; expected a finite number")
        return str(answer["task"]), int(answer["index"]), {**right, **values}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        shown = json.dumps(answer)[:60]
        raise UserError(f"{where}: is not an answer of an evaluation: {shown}") from error
