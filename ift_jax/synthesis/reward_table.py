"""The table of prompts, completions and rewards, as JSON lines that a command continues."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from ift_jax.io.files import json_digest
from ift_jax.io.stop_signals import Stopped
from ift_jax.sources.row_values import json_value
from ift_jax.synthesis.continued_lines import ContinuedLines, Progress
from ift_jax.synthesis.generator import TOO_LONG as PROMPT_TOO_LONG
from ift_jax.synthesis.prompt_rows import PromptRow
from ift_jax.synthesis.rejection_plan import Plan
from ift_jax.synthesis.rewards import TOO_LONG, Outcome, Reward, Sample
from ift_jax.synthesis.selection import Choice


def score_completions(
    plan: Plan,
    path: str,
    completions: list[dict[str, Any]],
    open_reward: Callable[[], Reward],
    stopped: Stopped,
    log: Callable[[str], None],
) -> list[dict[str, Any]] | None:
    """Judge what is not judged yet, and return the whole table.

    Args:
        plan: Names the prompts.
        path: The file of the table.
        completions: A line for each prompt, in their order.
        open_reward: Opens the reward.
        stopped: Whether to end before the next prompts.
        log: Gets lines about the progress.

    Returns:
        A line for each prompt, in their order; None if it was stopped.

    Raises:
        UserError: The file was begun with other settings, or the reward cannot be used.
    """
    reward = open_reward()
    settings = {
        **reward.settings(),
        "rows": json_digest([_shown_row(prompt) for prompt in plan.prompts]),
        "completions": json_digest(completions),
    }
    order = range(len(plan.prompts))
    file = ContinuedLines(path, settings, order, plan.prompts_at_once)
    progress = Progress("rewards of", file, log)
    while group := file.next_group():
        if stopped():
            return None
        file.append(_scored_lines(plan, [completions[i] for i in group], reward))
        progress.report()
    return file.lines


def _scored_lines(
    plan: Plan, lines: Sequence[dict[str, Any]], reward: Reward
) -> list[dict[str, Any]]:
    """Judge the completions of a few prompts; print a line for each that has no reward."""
    samples, places = [], []
    outcomes: dict[Choice, Outcome] = {}
    for line in lines:
        prompt = plan.prompts[line["index"]]
        for number, text in enumerate(line["completions"]):
            choice = Choice(line["index"], number)
            if line["finish_reasons"][number] == PROMPT_TOO_LONG:
                why = f"the prompt leaves no room for {plan.max_tokens} tokens"
                outcomes[choice] = Outcome(None, TOO_LONG, why)
                continue
            where = f"{prompt.where}, sample {number}"
            samples.append(Sample(where, prompt.row, prompt.record, text))
            places.append(choice)
    outcomes |= zip(places, reward.score(samples), strict=True)
    for choice, outcome in sorted(outcomes.items()):
        if outcome.value is None:
            where = plan.prompts[choice.prompt].where
            print(
                f"{reward.name}: {where}, sample {choice.sample}: {outcome.message}",
                file=sys.stderr,
                flush=True,
            )
    return [_table_line(plan, line, outcomes) for line in lines]


def _table_line(
    plan: Plan, line: dict[str, Any], outcomes: dict[Choice, Outcome]
) -> dict[str, Any]:
    index = line["index"]
    of_prompt = [outcomes[Choice(index, number)] for number in range(len(line["completions"]))]
    values = [outcome.value for outcome in of_prompt if outcome.value is not None]
    return {
        **line,
        "row": _shown_row(plan.prompts[index]),
        "rewards": [outcome.value for outcome in of_prompt],
        "mean": sum(values) / len(values) if values else None,
        "best": max(values, default=None),
        "failures": [
            {"sample": number, "reason": outcome.reason, "message": outcome.message}
            for number, outcome in enumerate(of_prompt)
            if outcome.value is None
        ],
    }


def _shown_row(prompt: PromptRow) -> dict[str, Any]:
    """The fields of a prompt's row in JSON's types: a table of Parquet may have others."""
    return {name: json_value(value) for name, value in prompt.row.items()}
