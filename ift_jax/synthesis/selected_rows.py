"""The training rows that a round selects, those of its control, and the round's summary."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ift_jax.io.files import json_bytes, write
from ift_jax.synthesis import selection
from ift_jax.synthesis.generator import STOP
from ift_jax.synthesis.prompt_rows import training_row
from ift_jax.synthesis.rejection_plan import Plan
from ift_jax.synthesis.selection import Choice

SELECTED, CONTROL, CHOICES = "selected.jsonl", "control.jsonl", "choices.jsonl"
SUMMARY = "summary.json"

TableLine = dict[str, Any]


class RoundResult(NamedTuple):
    """What a round gave.

    Attributes:
        summary: The contents of `summary.json`.
        selected: The file of selected training rows.
        control: The file of the control's training rows.
    """

    summary: dict[str, Any]
    selected: str
    control: str


def select(plan: Plan, folder: str, round_number: int, lines: Sequence[TableLine]) -> RoundResult:
    """Select, draw the control, and write both with the summary.

    Args:
        plan: How completions are selected.
        folder: The round's folder.
        round_number: The number of the round.
        lines: The table, a line for each prompt.
    """
    choosable = [
        [
            reward if finished or plan.keeps_unfinished else None
            for reward, finished in zip(line["rewards"], _is_finished(line), strict=True)
        ]
        for line in lines
    ]
    if plan.top:
        selected = selection.top_overall(choosable, plan.top, plan.threshold)
    else:
        selected = selection.best_per_prompt(choosable, plan.threshold)
    control = selection.random_control(choosable, selected, plan.seed)
    result = RoundResult(
        _summary(plan, round_number, lines, selected, control),
        os.path.join(folder, SELECTED),
        os.path.join(folder, CONTROL),
    )
    for path, choices in ((result.selected, selected), (result.control, control)):
        rows = [
            training_row(plan.prompts[i], lines[i]["completions"][sample]) for i, sample in choices
        ]
        write(Path(path), b"".join(_line(row) for row in rows))
    named = {"selected": selected, "control": control}
    marks = [
        {"set": name, "prompt": i, "sample": sample, "reward": lines[i]["rewards"][sample]}
        for name, choices in named.items()
        for i, sample in choices
    ]
    write(Path(folder, CHOICES), b"".join(map(_line, marks)))
    write(Path(folder, SUMMARY), json_bytes(result.summary))
    return result


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _is_finished(line: TableLine) -> list[bool]:
    return [reason == STOP for reason in line["finish_reasons"]]


def _summary(
    plan: Plan,
    round_number: int,
    lines: Sequence[TableLine],
    selected: Sequence[Choice],
    control: Sequence[Choice],
) -> dict[str, Any]:
    """Return counts and means; a mean over nothing is None."""
    of_prompts = [[value for value in line["rewards"] if value is not None] for line in lines]
    failed = Counter(
        reason for line in lines for reason in {failure["reason"] for failure in line["failures"]}
    )
    summary: dict[str, Any] = {
        "round": round_number,
        "prompts": len(lines),
        "completions": len(lines) * plan.samples,
        "completions_unfinished": sum(not able for line in lines for able in _is_finished(line)),
        "completions_with_reward": sum(map(len, of_prompts)),
        "failed_completions": sum(len(line["failures"]) for line in lines),
        "failed_prompts": sum(bool(line["failures"]) for line in lines),
        "failed_prompts_by_reason": dict(sorted(failed.items())),
        "mean_reward": _mean([value for values in of_prompts for value in values]),
        f"mean_of_best_of_{plan.samples}": _mean([max(values) for values in of_prompts if values]),
        "selected": len(selected),
        "selected_prompts": len({choice.prompt for choice in selected}),
    }
    if plan.threshold is not None:
        passed = [sum(value >= plan.threshold for value in values) for values in of_prompts]
        summary["threshold"] = plan.threshold
        summary["completions_passed"] = sum(passed)
        summary["prompts_with_a_pass"] = sum(map(bool, passed))
    for name, choices in (("selected", selected), ("control", control)):
        summary[f"{name}_mean_reward"] = _mean(
            [lines[i]["rewards"][sample] for i, sample in choices]
        )
        summary[f"{name}_mean_characters"] = _mean(
            [len(lines[i]["completions"][sample]) for i, sample in choices]
        )
    return summary


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
