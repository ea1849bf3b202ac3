"""Rank classification: how likely a model finds each choice of an example as its answer.

The score of a choice is the sum of the log-probabilities of its tokens given the prompt, without
normalization (T0, arXiv:2110.08207; FLAN, arXiv:2109.01652; the default of T5's code). With
`evaluation.length_normalize` it is their mean (an option of T5's code, the usual rule for GPT-3).
The tokens are those that training would have as the answer, its stop token included: targets of T0
and FLAN end in EOS as well.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import Config
from ift_jax.data.packed_layout import RowLayout
from ift_jax.decoding.generate import bucket
from ift_jax.models.fused_cross_entropy import CrossEntropyOptions, fused_linear_cross_entropy
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules


class Choices(NamedTuple):
    """What is ranked for one example; all are ids."""

    prompt: list[int]
    answers: list[list[int]]  # At least one; examples may have different numbers of them.
    prefix_length: int  # Tokens of the prompt that attend to each other in both directions.


class _Row(NamedTuple):
    """A prompt with one of its choices."""

    prompt: list[int]
    answer: list[int]
    prefix_length: int


class _Batch(NamedTuple):
    """Rows as arrays, an example per row."""

    inputs: dict[str, np.ndarray]  # As training lays out a batch.
    targets_BxL: np.ndarray  # int32.
    weights_BxL: np.ndarray  # float32, 1 for the tokens of the answer and else 0.


def log_probs(
    model: Model, params: Params, config: Config, examples: Sequence[Choices]
) -> list[list[float]]:
    """Scores each choice of each example.

    Every choice is a row with a copy of the prompt. `evaluation.batch_size` rows of similar lengths
    are scored together, so different numbers of choices cost nothing. Rows are padded to one of a
    few lengths, so that few programs are compiled. On a mesh (`jax.set_mesh`), rows are sharded
    over devices.
    """
    rows = [
        _Row(example.prompt, answer, example.prefix_length)
        for example in examples
        for answer in example.answers
    ]
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt), len(rows[i].answer)))
    size = min(config.evaluation.batch_size, 1 << max(len(rows) - 1, 0).bit_length())
    scores = np.zeros(len(rows))
    for start in range(0, len(rows), size):
        chosen = by_length[start : start + size]
        batch = _batch([rows[i] for i in chosen], size, config)
        sums_B = np.asarray(_sums(model, params, *batch))
        scores[chosen] = sums_B[: len(chosen)]
    if config.evaluation.length_normalize:
        scores /= [len(row.answer) for row in rows]
    ends = np.cumsum([len(example.answers) for example in examples])
    return [of_example.tolist() for of_example in np.split(scores, ends)[:-1]]


def _batch(rows: Sequence[_Row], size: int, config: Config) -> _Batch:
    """Lays out `size` rows, an example each; those that are missing are empty."""
    counts_B = (np.arange(size) < len(rows)).astype(np.int64)

    def layout(texts: Sequence[list[int]]) -> tuple[RowLayout, np.ndarray]:
        lengths_N = np.array([len(text) for text in texts])
        made = RowLayout(lengths_N, counts_B, bucket(int(lengths_N.max())))
        ids = [np.array(text, np.int32) for text in texts]
        return made, made.concatenate(ids, np.int32)

    if config.model.architecture == "encoder_decoder":
        encoder, sources = layout([row.prompt for row in rows])
        decoder, targets = layout([row.answer for row in rows])
        inputs = {"encoder_tokens": sources, "decoder_tokens": decoder.shift_right(targets)}
        for side, of_side in (("encoder", encoder), ("decoder", decoder)):
            for name, array in of_side.segments_and_positions().items():
                inputs[f"{side}_{name}"] = array
        weights = (inputs["decoder_segment_ids"] > 0).astype(np.float32)
        return _Batch(inputs, targets, weights)

    whole, tokens = layout([[*row.prompt, *row.answer] for row in rows])
    inputs = {"tokens": tokens, **whole.segments_and_positions()}
    prompt_lengths = np.array([len(row.prompt) for row in rows])
    in_prompt_BxL = inputs["positions"] < whole.repeat(prompt_lengths, 0)
    weights = ((inputs["segment_ids"] > 0) & ~in_prompt_BxL).astype(np.float32)
    if config.format.bidirectional_prefix:
        prefix_lengths = np.array([row.prefix_length for row in rows])
        inputs["prefix_mask"] = inputs["positions"] < whole.repeat(prefix_lengths, 0)
    return _Batch(inputs, whole.shift_left(tokens), whole.shift_left(weights))


@functools.partial(jax.jit, static_argnums=0)
def _sums(
    model: Model,
    params: Params,
    inputs: dict[str, jax.Array],
    targets_BxL: jax.Array,
    weights_BxL: jax.Array,
) -> jax.Array:
    """float32[B]: the log-probability of each row's weighted targets."""
    x_BxLxD = model.hidden(params, inputs)
    w_DxV, softcap = model.head(params)
    options = CrossEntropyOptions(softcap)
    _, parts = fused_linear_cross_entropy(x_BxLxD, w_DxV, targets_BxL, weights_BxL, options)
    # Replicated, so that every process can read it.
    return rules.constrain(-jnp.sum(parts.nll * weights_BxL, axis=1), None)
