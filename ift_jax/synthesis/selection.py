"""Which completions are trained on: the best by reward, or as many at random for the control.

Everything here is a pure function of a table of rewards: a row a prompt, a place a sample, None
where a completion has no reward.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.data.randomness import Draws, stable_hash

Rewards = Sequence[Sequence[float | None]]


class Choice(NamedTuple):
    """One completion of the table."""

    prompt: int  # The number of the prompt.
    sample: int  # The number of the completion among the prompt's.


def best_per_prompt(rewards: Rewards, threshold: float | None = None) -> list[Choice]:
    """Choose the completion with the highest reward of each prompt, the first one of equals.

    Args:
        rewards: The table.
        threshold: The least reward that is good enough; a prompt whose best is below it has no
            choice. None: every prompt with a reward has one.
    """
    chosen = []
    for prompt, row in enumerate(rewards):
        scored = [(reward, -sample) for sample, reward in enumerate(row) if reward is not None]
        if not scored:
            continue
        best, place = max(scored)
        if threshold is None or best >= threshold:
            chosen.append(Choice(prompt, -place))
    return chosen


def top_overall(rewards: Rewards, k: int, threshold: float | None = None) -> list[Choice]:
    """Choose the `k` completions with the highest rewards of all, in the table's order.

    Of equal rewards the one of the earlier prompt, then of the earlier sample, is chosen. A prompt
    may have several, or none.

    Args:
        rewards: The table.
        k: How many; fewer if fewer are good enough.
        threshold: The least reward that is good enough; None: all are.
    """
    scored = [
        (-reward, prompt, sample)
        for prompt, row in enumerate(rewards)
        for sample, reward in enumerate(row)
        if reward is not None and (threshold is None or reward >= threshold)
    ]
    return sorted(Choice(prompt, sample) for _, prompt, sample in sorted(scored)[:k])


def random_control(rewards: Rewards, chosen: Sequence[Choice], seed: int) -> list[Choice]:
    """Draw as many completions for each prompt as a selection has of it, whatever their rewards.

    So the control has the selection's prompts, in its counts; what differs is that nothing looked
    at the rewards. A draw depends on (seed, prompt) alone, and no completion is drawn twice. Only
    completions with a reward can be drawn, as only those could be selected.

    Args:
        rewards: The table.
        chosen: A selection from it.
        seed: The seed of the draws.
    """
    counts: dict[int, int] = {}
    for choice in chosen:
        counts[choice.prompt] = counts.get(choice.prompt, 0) + 1
    drawn = []
    for prompt, n in counts.items():
        able = [sample for sample, reward in enumerate(rewards[prompt]) if reward is not None]
        draws = Draws("rejection control", seed, prompt)
        drawn += [Choice(prompt, sample) for sample in draws.sample(able, n)]
    return sorted(drawn)


def sample_seed(seed: int, round_number: int, prompt: int, sample: int) -> int:
    """Return the seed of one completion, 63 bits: a function of what names it alone.

    The first samples of a prompt are the same whatever the number of samples, of prompts, and the
    batch size are.
    """
    return stable_hash("rejection", seed, round_number, prompt, sample, bits=63)
