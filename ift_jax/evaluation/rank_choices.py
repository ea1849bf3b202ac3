"""Rank classification: how likely a model finds each choice of an example as its answer.

The score of a choice is the sum of the log-probabilities of its tokens given the prompt, without
normalization (T0, arXiv:2110.08207; FLAN, arXiv:2109.01652; the default of T5's code). With
`evaluation.length_normalize` it is their mean (an option of T5's code, the usual rule for GPT-3).
The tokens are those that training would have as the answer, its stop token included: targets of T0
and FLAN end in EOS as well.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ift_jax.config.schema import Config, DecoderConfig, ModelConfig
from ift_jax.decoding.request_batch import bucket
from ift_jax.evaluation.finished_batches import FinishedBatches, known_answers
from ift_jax.evaluation.shared_prefix import (
    PrefixBatch,
    prefix_log_likelihoods,
    scoring_weights,
)
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Model, Params


class Choices(NamedTuple):
    """What is ranked for one example; all are ids."""

    prompt: list[int]
    answers: list[list[int]]  # At least one; examples may have different numbers of them.
    prefix_length: int  # Tokens of the prompt that attend to each other in both directions.


class Row(NamedTuple):
    """A choice of an example."""

    example: int
    choice: int


class Score(NamedTuple):
    """What the model says of a choice.

    Attributes:
        log_likelihood: The sum of the log-probabilities of its tokens.
        is_greedy: Whether each of them is the likeliest at its place.
    """

    log_likelihood: float
    is_greedy: bool


def log_probs(
    model: Model,
    params: Params,
    config: Config,
    examples: Sequence[Choices],
    stopped: Stopped = never,
    finished: FinishedBatches | None = None,
) -> dict[int, list[float]]:
    """Scores each choice of each example.

    Args:
        model: the model.
        params: its parameters.
        config: the run's config. A batch holds `evaluation.batch_size` choices (`batches`).
        examples: what is ranked.
        stopped: whether to end before the next batch.
        finished: has the scores of an evaluation that was stopped, and keeps new ones. Of several
            processes only the first one's counts.

    Returns:
        The scores of an example's choices, by its place in `examples`; an example with a choice
        that a stop left unscored is missing.
    """
    prompts = [example.prompt for example in examples]
    sums: dict[int, list[float]] = dict(known_answers(finished, prompts))
    size, all_batches = batches(examples, config.evaluation.batch_size)
    missing = [rows for rows in all_batches if any(row.example not in sums for row in rows)]
    if missing and not stopped():
        weights = scoring_weights(model, params)
        scores: dict[Row, float] = {}
        for rows in missing:
            found = score_rows(*weights, config, examples, rows, size)
            scores |= {row: score.log_likelihood for row, score in found.items()}
            new = _complete(examples, rows, scores)
            sums |= new
            if finished:
                finished.add(0, prompts, new)
            if stopped():
                break
    if config.evaluation.length_normalize:
        return {
            i: [
                score / len(answer)
                for score, answer in zip(of_example, examples[i].answers, strict=True)
            ]
            for i, of_example in sorted(sums.items())
        }
    return dict(sorted(sums.items()))


def batches(examples: Sequence[Choices], batch_size: int) -> tuple[int, list[list[Row]]]:
    """Divide all choices into batches, of examples with prompts of similar lengths.

    Every choice is a row, and the prompts of a batch are read once (`shared_prefix`). So different
    numbers of choices cost nothing, and there may be any number of them.

    Returns:
        The rows that every batch is padded to, at most `batch_size`; and the batches.
    """
    by_length = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    rows = [Row(i, choice) for i in by_length for choice in range(len(examples[i].answers))]
    size = min(batch_size, 1 << max(len(rows) - 1, 0).bit_length())
    return size, [rows[start : start + size] for start in range(0, len(rows), size)]


def score_rows(
    model: Model,
    params: Params,
    config: Config,
    examples: Sequence[Choices],
    rows: Sequence[Row],
    size: int,
) -> dict[Row, Score]:
    """Score the choices of one batch.

    Args:
        model: What `scoring_weights` returned, or an unrolled model.
        params: Its parameters.
        config: The run's config.
        examples: What is ranked.
        rows: A batch of `batches`.
        size: The rows that it is padded to.
    """
    batch = _batch(examples, rows, size, model.config)
    bidirectional = config.format.bidirectional_prefix
    found = jax.device_get(prefix_log_likelihoods(model, params, batch, bidirectional))
    n = len(rows)
    sums, greedy = found.log_likelihoods_B[:n].tolist(), found.greedy_B[:n].tolist()
    return dict(zip(rows, map(Score, sums, greedy), strict=True))


def _complete(
    examples: Sequence[Choices], rows: Sequence[Row], scores: Mapping[Row, float]
) -> dict[int, list[float]]:
    """Return the scores of those examples of some rows whose choices are all scored."""
    found = {}
    for i in dict.fromkeys(row.example for row in rows):
        of_example = [Row(i, choice) for choice in range(len(examples[i].answers))]
        if all(row in scores for row in of_example):
            found[i] = [scores[row] for row in of_example]
    return found


class _Prompt(NamedTuple):
    """The prompt of some choices of an example, as a batch reads it once."""

    example: int
    is_long: bool  # Whether with each of them it is a long text to LongRoPE.


def _batch(
    examples: Sequence[Choices], rows: Sequence[Row], size: int, config: ModelConfig
) -> PrefixBatch:
    """Lay out rows, with their prompts, in a batch of `size` rows and few different shapes."""
    answers = [examples[row.example].answers[row.choice] for row in rows]
    lengths_of: dict[_Prompt, list[int]] = {}
    prompt_of_row = []
    for row, answer in zip(rows, answers, strict=True):
        length = len(examples[row.example].prompt) + len(answer)
        is_long = isinstance(config, DecoderConfig) and config.is_long_text(length)
        prompt_of_row.append(_Prompt(row.example, is_long))
        lengths_of.setdefault(prompt_of_row[-1], []).append(length)
    place = {prompt: n for n, prompt in enumerate(lengths_of)}
    n_missing = min(size, 1 << (len(place) - 1).bit_length()) - len(place)
    prompts = [examples[prompt.example].prompt for prompt in place] + [[0]] * n_missing
    prefix_lengths = [examples[prompt.example].prefix_length for prompt in place]
    n_empty = size - len(rows)
    return PrefixBatch(
        prompts_NxP=_padded(prompts),
        prompt_lengths_N=np.array([len(prompt) for prompt in prompts], np.int32),
        prefix_lengths_N=np.array(prefix_lengths + [0] * n_missing, np.int32),
        prompt_of_row_B=np.array(
            [place[prompt] for prompt in prompt_of_row] + [0] * n_empty, np.int32
        ),
        targets_BxL=_padded(answers + [[]] * n_empty),
        target_lengths_B=np.array([len(answer) for answer in answers] + [0] * n_empty, np.int32),
        text_lengths_N=np.array([*map(max, lengths_of.values())] + [1] * n_missing, np.int32),
    )


def _padded(texts: Sequence[Sequence[int]]) -> np.ndarray:
    """Return int32, a text in each row, padded with 0 to one of a few lengths."""
    padded = np.zeros((len(texts), bucket(max(map(len, texts)))), np.int32)
    for row, text in zip(padded, texts, strict=True):
        row[: len(text)] = text
    return padded
