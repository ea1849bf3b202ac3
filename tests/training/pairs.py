"""Random pairs, and batches of them laid out by hand, token by token."""

from typing import NamedTuple

import numpy as np

from tests.small_models import VOCAB
from tests.training.examples import Example, decoder_batch


class Pair(NamedTuple):
    """A pair of two sequences, and what a reference model makes of them."""

    chosen: Example
    rejected: Example
    reference: tuple[float, float]


def make_pairs(lengths, vocab=VOCAB, seed=0):
    """Pairs with prompts and answers of these lengths: (prompt, chosen answer, rejected answer)."""
    rng = np.random.default_rng(seed)
    pairs = []
    for n_prompt, *answers in lengths:
        prompt = rng.integers(3, vocab, n_prompt)
        sides = [
            Example(
                np.concatenate([prompt, rng.integers(3, vocab, n)]),
                np.concatenate([np.zeros(n_prompt), np.ones(n)]).astype(np.float32),
                np.zeros(0, int),
                task=len(pairs) % 3,
            )
            for n in answers
        ]
        reference = tuple(-3.0 * n + rng.normal() for n in answers)
        pairs.append(Pair(*sides, reference))
    return pairs


def pair_batch(rows, length):
    """A batch of rows of pairs, each row with `length` positions."""
    batch = decoder_batch([[side for p in row for side in p[:2]] for row in rows], length)
    batch["reference_log_probs"] = np.zeros((len(rows), length), np.float32)
    for r, row in enumerate(rows):
        at = 0
        for pair in row:
            for side, log_prob in zip(pair[:2], pair.reference, strict=True):
                batch["reference_log_probs"][r, at] = log_prob
                at += len(side.tokens)
    return batch
