"""Rank classification: how likely a model finds each choice of an example as its answer.

A choice's score is the sum of the log-probabilities of its tokens, given the prompt, without
normalisation (T0, arXiv:2110.08207; FLAN, arXiv:2109.01652; T5's code by default), or their mean
(`evaluation.length_normalize`: T5's option, GPT-3's usual rule). The tokens are those that training
would have as the answer, its stop token among them: T0's and FLAN's targets end in EOS, too.
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
from ift_jax.models.fused_cross_entropy import HeadLoss, head_loss
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules


class Choices(NamedTuple):
    """What is ranked for one example; ids."""

    prompt: list[int]
    answers: list[list[int]]  # At least one; examples may have different numbers of them.
    prefix_length: int  # Of the prompt, where it attends to itself both ways.


def log_probs(
    model: Model, params: Params, config: Config, examples: Sequence[Choices]
) -> list[list[float]]:
    """The score of each choice of each example.

    Every choice is a row with the prompt of its own, `evaluation.batch_size` of similar lengths
    together, so that ragged numbers of choices cost nothing. Rows are padded to one of a few
    lengths: few programs are compiled. On a mesh (`jax.set_mesh`), rows are cut over devices.
    """
    rows = [(e.prompt, ids, e.prefix_length) for e in examples for ids in e.answers]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i][0]), len(rows[i][1])))
    size = min(config.evaluation.batch_size, 1 << max(len(rows) - 1, 0).bit_length())
    scores = np.zeros(len(rows))
    for start in range(0, len(rows), size):
        chosen = order[start : start + size]
        arrays = _arrays([rows[i] for i in chosen], size, config)
        scores[chosen] = np.asarray(_sums(model, params, *arrays))[: len(chosen)]
    if config.evaluation.length_normalize:
        scores /= [len(ids) for _, ids, _ in rows]
    ends = np.cumsum([len(example.answers) for example in examples])
    return [part.tolist() for part in np.split(scores, ends)[:-1]]


def _arrays(
    rows: Sequence[tuple[list[int], list[int], int]], size: int, config: Config
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """A batch as training lays it out, an example a row, its targets and their weights."""
    counts_B = (np.arange(size) < len(rows)).astype(np.int64)

    def layout(texts: Sequence[list[int]]) -> tuple[RowLayout, np.ndarray]:
        lengths_N = np.array([len(text) for text in texts])
        made = RowLayout(lengths_N, counts_B, bucket(int(lengths_N.max())))
        ids = [np.array(text, np.int32) for text in texts]
        return made, made.concatenate(ids, np.int32)

    prompts, answers, prefixes = zip(*rows, strict=True)
    if config.model.architecture == "encoder_decoder":
        encoder, sources = layout(prompts)
        decoder, targets = layout(answers)
        batch = {"encoder_tokens": sources, "decoder_tokens": decoder.shift_right(targets)}
        sides = encoder.segments_and_positions()
        batch |= {f"encoder_{name}": array for name, array in sides.items()}
        places = decoder.segments_and_positions()
        batch |= {f"decoder_{name}": array for name, array in places.items()}
        return batch, targets, (places["segment_ids"] > 0).astype(np.float32)
    whole, tokens = layout([[*prompt, *ids] for prompt, ids, _ in rows])
    batch = {"tokens": tokens, **whole.segments_and_positions()}
    before_BxL = batch["positions"] < whole.repeat(np.array([len(p) for p in prompts]), 0)
    weights = ((batch["segment_ids"] > 0) & ~before_BxL).astype(np.float32)
    if config.format.bidirectional_prefix:
        batch["prefix_mask"] = batch["positions"] < whole.repeat(np.array(prefixes), 0)
    return batch, whole.shift_left(tokens), whole.shift_left(weights)


@functools.partial(jax.jit, static_argnums=0)
def _sums(
    model: Model,
    params: Params,
    batch: dict[str, jax.Array],
    targets_BxL: jax.Array,
    weights_BxL: jax.Array,
) -> jax.Array:
    """Float32 B: the log-probability of each row's weighted targets."""
    x_BxLxD, (w_DxV, softcap) = model.hidden(params, batch), model.head(params)
    _, parts = head_loss(x_BxLxD, w_DxV, targets_BxL, weights_BxL, HeadLoss(softcap))
    # Whole on every device, so that every process can read it.
    return rules.constrain(-jnp.sum(parts.nll * weights_BxL, axis=1), None)
