"""Sections of a model card on what a model reaches: held-out losses, and scores of answers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.evaluation.metric_values import is_number, number_names
from ift_jax.evaluation.score_table import score_text, title
from ift_jax.report.card.facts import RunFacts, Scores
from ift_jax.report.card.markdown import code, table

_LOSSES = {"eval_loss": "unseen examples of the trained tasks", "heldout_loss": "held-out tasks"}
_MOST_TASKS = 40  # If there are more, only the means are shown.
_NO_COLUMN = ("examples", "stopped", "tasks")


def results(facts: RunFacts, step: int) -> Iterator[str]:
    """Yield the sections that there is something for."""
    parts = [*_losses(facts, step), *_scores(facts.scores, step)]
    if parts:
        yield "\n\n".join(["## Results", *parts])
    else:
        yield "## Results\n\nNothing was measured."


def _losses(facts: RunFacts, step: int) -> Iterator[str]:
    """Yield a table of each loss before training, at the exported step, and where it was lowest."""
    rows = []
    for name, of_what in _LOSSES.items():
        values = facts.losses[name]
        if not values:
            continue
        first, here = values[0], values[-1]
        before = f"{first.value:.4f}" if first.step == 0 else ""
        after = f"{here.value:.4f}" if here.step else ""
        if after and here.step != step:
            after += f" (step {here.step:,})"
        lowest = min(values, key=lambda loss: loss.value)
        rows.append((of_what, before, after, f"{lowest.value:.4f} at step {lowest.step:,}"))
    if rows:
        yield table([f"loss per {facts.loss_of} on", "before", "after", "lowest"], rows)


def _scores(scores: Scores | None, step: int) -> Iterator[str]:
    if scores is None:
        return
    if scores.step != step:
        yield (
            f"**These scores are of step {scores.step:,} of the same run**, not of the exported "
            f"step {step:,}."
        )
    for name, part in scores.parts.items():
        yield f"Answers to {name}, with 95% intervals:"
        yield _score_table(part)


def _score_table(part: Mapping[str, Any]) -> str:
    intervals = part.get("intervals", {})
    tasks = sorted(part["tasks"].items())
    rows = [(code(name), scores, intervals.get(name, {})) for name, scores in tasks]
    overall = (f"mean over {len(tasks):,} tasks", part["overall"], intervals.get("overall", {}))
    if len(tasks) > _MOST_TASKS:
        rows = [
            (f"{code(name)} ({scores['tasks']:,} tasks)", scores, {})
            for name, scores in sorted(part.get("clusters", {}).items())
        ]
    if len(tasks) > 1:
        rows.append(overall)
    metrics = number_names((scores for _, scores, _ in rows), _NO_COLUMN)
    cells = [
        [name, scores["examples"], *(_cell(scores.get(key), of_row.get(key)) for key in metrics)]
        for name, scores, of_row in rows
    ]
    return table(["task", "examples", *(code(title(key)) for key in metrics)], cells)


def _cell(value: Any, interval: Mapping[str, float] | None) -> str:
    if not is_number(value):
        return ""
    text = score_text(value)
    if interval is None or not math.isfinite(value):
        return text
    return f"{text} ({interval['low']:.3f} to {interval['high']:.3f})"
