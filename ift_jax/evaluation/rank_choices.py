"""Rank classification: how likely a model finds each choice of an example as its answer.

The score of a choice is the sum of the log-probabilities of its tokens given the prompt, without
normalization (T0, arXiv:2110.08207; FLAN, arXiv:2109.01652; the default of T5's code). With
`evaluation.length_normalize` it is their mean (an option of T5's code, the usual rule for GPT-3).
The tokens are those that training would have as the answer, its stop token included: targets of T0
and FLAN end in EOS as well.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.config.schema import Config
from ift_jax.evaluation.log_likelihoods import Continuation, log_likelihoods
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Model, Params


class Choices(NamedTuple):
    """What is ranked for one example; all are ids."""

    prompt: list[int]
    answers: list[list[int]]  # At least one; examples may have different numbers of them.
    prefix_length: int  # Tokens of the prompt that attend to each other in both directions.


def log_probs(
    model: Model,
    params: Params,
    config: Config,
    examples: Sequence[Choices],
    stopped: Stopped = never,
) -> dict[int, list[float]]:
    """Scores each choice of each example.

    Every choice is a row with a copy of the prompt, and rows of similar lengths are scored
    together (`log_likelihoods`), so different numbers of choices cost nothing.

    Args:
        model: the model.
        params: its parameters.
        config: the run's config.
        examples: what is ranked.
        stopped: whether to end before the next batch.

    Returns:
        The scores of an example's choices, by its place in `examples`; an example with a choice
        that a stop left unscored is missing.
    """
    rows = [
        Continuation(example.prompt, answer, example.prefix_length)
        for example in examples
        for answer in example.answers
    ]
    scores = log_likelihoods(model, params, config, rows, stopped)
    if config.evaluation.length_normalize:
        scores = {row: score / len(rows[row].answer) for row, score in scores.items()}
    found: dict[int, list[float]] = {}
    first_row = 0
    for i, example in enumerate(examples):
        of_example = range(first_row, first_row + len(example.answers))
        first_row = of_example.stop
        if all(row in scores for row in of_example):
            found[i] = [scores[row] for row in of_example]
    return found
