"""Rows of examples as the arrays of a batch."""

from typing import Any

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.data.packed_layout import RowLayout
from ift_jax.data.packed_windows import RowExamples
from ift_jax.data.pairs import REFERENCE, Sequences, at_first_tokens

Batch = dict[str, np.ndarray]


def lay_out(
    mixture: Mixture,
    examples: RowExamples,
    row_ids: np.ndarray,
    capacities: tuple[int, ...],
    *,
    bidirectional_prefix: bool = False,
) -> Batch:
    """Lay out the examples of some rows; `ift_jax.data.batches.BatchPlan.batch` lists the arrays.

    Args:
        mixture: The tasks and their stores.
        examples: What each row holds.
        row_ids: int32[B], the index of each row in the global batch.
        capacities: Tokens per row: (max_length,) or (inputs_length, targets_length).
        bidirectional_prefix: Whether a decoder's batch carries `prefix_mask`.
    """
    counts, task_ids, variants, example_ids = examples
    # Each example as its variant and its index in it. Lists, because indexing arrays by
    # single elements is slow.
    found = [
        (mixture.stores[task].variants[variant], i)
        for task, variant, i in zip(
            task_ids.tolist(), variants.tolist(), example_ids.tolist(), strict=True
        )
    ]
    flat_ids = mixture.flat_ids(task_ids, variants, example_ids)
    stored = [variant.tokens_and_weights(i) for variant, i in found]
    sequences = Sequences(
        mixture.lengths[flat_ids],
        counts,
        task_ids,
        [ids for ids, _ in stored],
        [weights for _, weights in stored],
    )
    holds_pairs = mixture.holds_pairs
    if holds_pairs:
        sequences = sequences.split_pairs(mixture.rejected_starts[flat_ids])
    layout = RowLayout(sequences.lengths_N, sequences.counts_B, capacities[-1])
    tokens = layout.concatenate(sequences.tokens, np.int32)
    weights = layout.concatenate(sequences.weights, np.float32)
    structure = layout.segments_and_positions()
    structure["task_ids"] = layout.repeat(sequences.task_ids_N, -1)

    if len(capacities) == 2:
        encoder = RowLayout(mixture.encoder_lengths[flat_ids], counts, capacities[0])
        inputs = [variant.encoder_tokens(i) for variant, i in found]
        return {
            "encoder_tokens": encoder.concatenate(inputs, np.int32),
            **prefixed("encoder_", encoder.segments_and_positions()),
            "decoder_tokens": layout.shift_right(tokens),
            "decoder_targets": tokens,
            "decoder_loss_weights": weights,
            **prefixed("decoder_", structure),
            "row_ids": row_ids,
        }
    batch = {
        "tokens": tokens,
        "targets": layout.shift_left(tokens),
        "loss_weights": layout.shift_left(weights),
        **structure,
        "row_ids": row_ids,
    }
    if holds_pairs:
        log_probs_Nx2 = mixture.reference_log_probs[flat_ids]
        batch[REFERENCE] = at_first_tokens(layout, log_probs_Nx2.reshape(-1))
    if bidirectional_prefix:
        prefix_N = np.array([variant.prefix_lengths[i] for variant, i in found], np.int32)
        batch["prefix_mask"] = batch["positions"] < layout.repeat(prefix_N, 0)
    return batch


def prefixed(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """Return arrays with a prefix before their names."""
    return {prefix + name: value for name, value in arrays.items()}
