"""One round of rejection sampling: completions, their rewards, and what is selected of them.

Each stage writes one file that an interrupted command continues. What is selected is a function of
the table of rewards, so it is made anew every time.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from ift_jax.io.stop_signals import Stopped, never
from ift_jax.synthesis.answers_so_far import AnswersSoFar, remove_answers_so_far
from ift_jax.synthesis.continued_lines import ContinuedLines, Progress
from ift_jax.synthesis.generator import Completer, Interrupted, TextRequest
from ift_jax.synthesis.rejection_plan import Plan, message_texts
from ift_jax.synthesis.reward_table import score_completions
from ift_jax.synthesis.rewards import Reward
from ift_jax.synthesis.selected_rows import RoundResult, select
from ift_jax.synthesis.selection import sample_seed

COMPLETIONS, TABLE = "completions.jsonl", "table.jsonl"


def run_round(
    plan: Plan,
    folder: str,
    round_number: int,
    open_completer: Callable[[], Completer],
    open_reward: Callable[[], Reward],
    *,
    stopped: Stopped = never,
    log: Callable[[str], None] = print,
) -> RoundResult | None:
    """Run a round, or continue it.

    Args:
        plan: What is sampled and selected.
        folder: The round's folder.
        round_number: The number of the round, from 1.
        open_completer: Opens the model that answers; called once, and let go of after use.
        open_reward: Opens the reward; called after that, so that two models need not fit together.
        stopped: Whether to end before the next group of completions.
        log: Gets lines about the progress.

    Returns:
        The result; None if it was stopped.

    Raises:
        UserError: A file was begun with other settings, or a model cannot be used.
    """
    os.makedirs(folder, exist_ok=True)
    completions = _complete(plan, folder, round_number, open_completer, stopped, log)
    if completions is None:
        return None
    path = os.path.join(folder, TABLE)
    lines = score_completions(plan, path, completions, open_reward, stopped, log)
    if lines is None:
        return None
    return select(plan, folder, round_number, lines)


def _complete(
    plan: Plan,
    folder: str,
    round_number: int,
    open_completer: Callable[[], Completer],
    stopped: Stopped,
    log: Callable[[str], None],
) -> list[dict[str, Any]] | None:
    """Return the lines of completions, in the order of the prompts; None if it was stopped."""
    completer = open_completer()
    settings = {**plan.settings(), "round": round_number, **completer.settings()}
    # Prompts of similar lengths come together: a batch takes as long as its longest row.
    lengths = [sum(len(text) for _, text in message_texts(prompt)) for prompt in plan.prompts]
    order = sorted(range(len(plan.prompts)), key=lambda i: (lengths[i], i))
    path = os.path.join(folder, COMPLETIONS)
    file = ContinuedLines(path, settings, order, plan.prompts_at_once)
    progress = Progress(f"round {round_number}: completions of", file, log)
    while group := file.next_group():
        if stopped():
            return None
        requests = [
            _request(plan, round_number, i, sample) for i in group for sample in range(plan.samples)
        ]
        so_far = AnswersSoFar(folder, requests, settings)
        try:
            answers = [answers[0] for answers in completer.complete(requests, so_far)]
        except Interrupted:
            return None
        file.append(
            [
                {
                    "index": i,
                    "completions": [answer.text.strip() for answer in of_prompt],
                    "finish_reasons": [answer.finish_reason for answer in of_prompt],
                }
                for i, of_prompt in zip(group, _cut(answers, plan.samples), strict=True)
            ]
        )
        remove_answers_so_far(folder)
        progress.report()
    remove_answers_so_far(folder)  # A kill may have left it behind the last group.
    return sorted(file.lines, key=lambda line: line["index"])


def _request(plan: Plan, round_number: int, prompt: int, sample: int) -> TextRequest:
    return TextRequest(
        plan.prompts[prompt].record.messages,
        plan.max_tokens,
        plan.temperature,
        plan.top_p,
        stop=plan.stop,
        seed=sample_seed(plan.seed, round_number, prompt, sample),
    )


def _cut(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
