"""What a model card says of a run, read from the workdir's files."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.checkpoint.open_model import WorkdirSource
from ift_jax.checkpoint.run_description import RunRecord
from ift_jax.evaluation.score_table import SET_TITLES
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.paths import fetch, is_remote
from ift_jax.report.run_files import (
    EVALUATION_FILE,
    EVALUATIONS_FILE,
    METRICS_FILE,
    Record,
    read_lines,
)

_FINAL = "evaluation"  # The record of `metrics.jsonl` that the scores at the end of a run have.


class Loss(NamedTuple):
    """A loss on examples that are not trained on."""

    step: int
    value: float


class Scores(NamedTuple):
    """Scores of answers at one step.

    Attributes:
        step: The step of the model that answered.
        parts: Title of a mixture -> tasks, overall, intervals, as `evaluation.json` has them.
    """

    step: int
    parts: Mapping[str, Mapping[str, Any]]


class RunFacts(NamedTuple):
    """What is known of a run at a step.

    Attributes:
        record: What it reads, and whether it is complete.
        trained_tokens: Tokens that it was trained on; None if that is not known.
        losses: The losses until that step by name ("eval_loss", "heldout_loss"), which are finite.
        loss_of: What the first of them is a mean over: "token" or "pair".
        scores: The scores of that step, or those at the end of the run; None without any.
    """

    record: RunRecord
    trained_tokens: int | None
    losses: dict[str, list[Loss]]
    loss_of: str
    scores: Scores | None


def read_facts(source: WorkdirSource) -> RunFacts:
    """Read the files of a run.

    Raises:
        UserError: A file is not what a run writes.
    """
    if is_remote(source.path):
        fetch(source.path, source.local, (METRICS_FILE, EVALUATIONS_FILE))
    metrics = read_lines(os.path.join(source.local, METRICS_FILE))
    until = [record for record in metrics if record["step"] <= source.step]
    trained = [record["trained_tokens"] for record in until if "trained_tokens" in record]
    return RunFacts(
        RunRecord.read(source.local),
        sum(trained) if trained else None,
        {name: _losses(until, name) for name in ("eval_loss", "heldout_loss")},
        "pair" if any("eval_preference" in record for record in until) else "token",
        _scores(source, metrics),
    )


def _losses(metrics: Sequence[Record], name: str) -> list[Loss]:
    return [
        Loss(record["step"], record[name])
        for record in metrics
        if isinstance(record.get(name), float) and math.isfinite(record[name])
    ]


def _scores(source: WorkdirSource, metrics: Sequence[Record]) -> Scores | None:
    """Return the scores at the end if they are of this step, else those while it trained."""
    path = os.path.join(source.local, EVALUATION_FILE)
    parts = read_json_object(path) if os.path.exists(path) else {}
    steps = [record["step"] for record in metrics if _FINAL in record]
    final = Scores(steps[-1], parts) if parts and steps else None
    if final and final.step == source.step:
        return final
    on_the_way = {
        SET_TITLES[record["which"]]: record
        for record in read_lines(os.path.join(source.local, EVALUATIONS_FILE))
        if record["step"] == source.step and record["which"] in SET_TITLES
    }
    return Scores(source.step, on_the_way) if on_the_way else final
