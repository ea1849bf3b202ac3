"""Random examples, and batches of them laid out by hand, token by token."""

from typing import NamedTuple

import numpy as np

from tests.small_models import VOCAB


class Example(NamedTuple):
    """An example as in a store."""

    tokens: np.ndarray  # int, [n]; for an encoder-decoder those of the decoder.
    weights: np.ndarray  # float32, [n]
    encoder_tokens: np.ndarray  # int, [m]; a decoder does not read them.
    task: int


def make_examples(lengths, encoder_lengths, seed=0):
    """Examples of these lengths with random ids and weights; the last token is trained."""
    rng = np.random.default_rng(seed)
    examples = []
    for n, m in zip(lengths, encoder_lengths, strict=True):
        weights = rng.choice([0.0, 0.5, 1.0], n).astype(np.float32)
        weights[-1] = 1.0
        tokens = rng.integers(1, VOCAB, n)
        encoder_tokens = rng.integers(1, VOCAB, m)
        examples.append(Example(tokens, weights, encoder_tokens, task=len(examples) % 3))
    return examples


def decoder_batch(rows, length):
    """A decoder's batch of rows of examples, each row with `length` positions."""
    names = ("tokens", "targets", "segment_ids", "positions", "task_ids")
    batch = {name: np.zeros((len(rows), length), np.int32) for name in names}
    batch["task_ids"][:] = -1
    batch["loss_weights"] = np.zeros((len(rows), length), np.float32)
    batch["row_ids"] = np.arange(len(rows), dtype=np.int32)
    for r, row in enumerate(rows):
        at = 0
        for segment, example in enumerate(row, start=1):
            for i, token in enumerate(example.tokens):
                batch["tokens"][r, at] = token
                batch["segment_ids"][r, at] = segment
                batch["positions"][r, at] = i
                batch["task_ids"][r, at] = example.task
                if i + 1 < len(example.tokens):
                    batch["targets"][r, at] = example.tokens[i + 1]
                    batch["loss_weights"][r, at] = example.weights[i + 1]
                at += 1
    return batch


def encoder_decoder_batch(rows, length):
    """An encoder-decoder's batch of rows of examples; both sides have `length` positions."""
    n_rows = len(rows)
    batch = {
        f"{side}_{name}": np.zeros((n_rows, length), np.int32)
        for side in ("encoder", "decoder")
        for name in ("tokens", "segment_ids", "positions")
    }
    batch["decoder_targets"] = np.zeros((n_rows, length), np.int32)
    batch["decoder_task_ids"] = np.full((n_rows, length), -1, np.int32)
    batch["decoder_loss_weights"] = np.zeros((n_rows, length), np.float32)
    batch["row_ids"] = np.arange(n_rows, dtype=np.int32)
    for r, row in enumerate(rows):
        at = {"encoder": 0, "decoder": 0}
        for segment, example in enumerate(row, start=1):
            for side, ids in (("encoder", example.encoder_tokens), ("decoder", example.tokens)):
                for i, token in enumerate(ids):
                    place = (r, at[side])
                    batch[f"{side}_segment_ids"][place] = segment
                    batch[f"{side}_positions"][place] = i
                    if side == "encoder":
                        batch["encoder_tokens"][place] = token
                    else:
                        batch["decoder_tokens"][place] = ids[i - 1] if i else 0
                        batch["decoder_targets"][place] = token
                        batch["decoder_loss_weights"][place] = example.weights[i]
                        batch["decoder_task_ids"][place] = example.task
                    at[side] += 1
    return batch


BATCHES = {"decoder": decoder_batch, "encoder_decoder": encoder_decoder_batch}
