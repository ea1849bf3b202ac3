"""How likely a model finds given answers: sums of log-probabilities, in batches of padded rows.

The score of an answer is what T5X's `score_batch` gives SeqIO's metrics of (targets, scores): the
sum over its tokens of weight times log-probability, given the prompt, without normalization by
length. The tokens are those that training would have as the answer, its stop token included.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.config.schema import Config
from ift_jax.data.packed_layout import RowLayout
from ift_jax.decoding.request_batch import bucket
from ift_jax.io.stop_signals import Stopped, never, until
from ift_jax.models.fused_cross_entropy import CrossEntropyOptions, fused_linear_cross_entropy
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules


class Continuation(NamedTuple):
    """A prompt with an answer to it.

    Attributes:
        prompt: The ids of the prompt.
        answer: The ids of the answer.
        prefix_length: Tokens of the prompt that attend to each other in both directions.
        weights: A weight for each token of the answer; by default all are 1.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    prefix_length: int
    weights: Sequence[float] | None = None


class _Batch(NamedTuple):
    """Rows as arrays, a continuation per row."""

    inputs: dict[str, np.ndarray]  # As training lays out a batch.
    targets_BxL: np.ndarray  # int32.
    weights_BxL: np.ndarray  # float32, 0 for all but the tokens of the answer.


def log_likelihoods(
    model: Model,
    params: Params,
    config: Config,
    rows: Sequence[Continuation],
    stopped: Stopped = never,
) -> dict[int, float]:
    """Return the log-likelihood of each answer given its prompt, by row.

    `evaluation.batch_size` rows of similar lengths are scored together. Rows are padded to one of a
    few lengths, so that few programs are compiled. On a mesh (`jax.set_mesh`), rows are sharded
    over devices.

    Args:
        model: The model.
        params: Its parameters.
        config: The run's config.
        rows: Prompts with their answers, of at least one token each.
        stopped: Whether to end before the next batch; the rows that are left are then missing.
    """
    by_length = sorted(range(len(rows)), key=lambda i: (len(rows[i].prompt), len(rows[i].answer)))
    size = min(config.evaluation.batch_size, 1 << max(len(rows) - 1, 0).bit_length())
    scores: dict[int, float] = {}
    for start in until(stopped, range(0, len(rows), size)):
        chosen = by_length[start : start + size]
        batch = _batch([rows[i] for i in chosen], size, config)
        sums_B = np.asarray(_sums(model, params, *batch))
        scores |= zip(chosen, sums_B[: len(chosen)].tolist(), strict=True)
    return scores


def _batch(rows: Sequence[Continuation], size: int, config: Config) -> _Batch:
    """Lay out `size` rows; those that are missing are empty."""
    counts_B = (np.arange(size) < len(rows)).astype(np.int64)

    def layout(texts: Sequence[Sequence[int]]) -> tuple[RowLayout, np.ndarray]:
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
        weights = decoder.concatenate([_answer_weights(row) for row in rows], np.float32)
        return _Batch(inputs, targets, weights)

    whole, tokens = layout([[*row.prompt, *row.answer] for row in rows])
    inputs = {"tokens": tokens, **whole.segments_and_positions()}
    weights_N = [np.pad(_answer_weights(row), (len(row.prompt), 0)) for row in rows]
    weights = whole.concatenate(weights_N, np.float32)
    if config.format.bidirectional_prefix:
        prefix_lengths = np.array([row.prefix_length for row in rows])
        inputs["prefix_mask"] = inputs["positions"] < whole.repeat(prefix_lengths, 0)
    return _Batch(inputs, whole.shift_left(tokens), whole.shift_left(weights))


def _answer_weights(row: Continuation) -> np.ndarray:
    """Return float32 with the weight of each token of the answer."""
    if row.weights is None:
        return np.ones(len(row.answer), np.float32)
    return np.asarray(row.weights, np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _sums(
    model: Model,
    params: Params,
    inputs: dict[str, jax.Array],
    targets_BxL: jax.Array,
    weights_BxL: jax.Array,
) -> jax.Array:
    """Return float32[B], the weighted log-probability of each row's targets."""
    x_BxLxD = model.hidden(params, inputs)
    w_DxV, softcap = model.head(params)
    options = CrossEntropyOptions(softcap)
    _, parts = fused_linear_cross_entropy(x_BxLxD, w_DxV, targets_BxL, weights_BxL, options)
    # Replicated, so that every process can read it.
    return rules.constrain(-jnp.sum(parts.nll * weights_BxL, axis=1), None)
