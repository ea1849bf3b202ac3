"""Losses of pairs of a chosen and a rejected answer: direct preference optimization.

All of them are functions of how much likelier the trained model holds each answer than the
reference model does. Names and formulas are those of TRL's `DPOTrainer`.

Shape suffixes: B rows, L positions, S segments of a row, P pairs of a row; pair p has the segments
2p + 1 (chosen) and 2p + 2 (rejected).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import PreferenceConfig


class Sides(NamedTuple):
    """A number for each side of each pair, float32 BxP each; 0 where there is no pair."""

    chosen: jax.Array
    rejected: jax.Array


class PairLosses(NamedTuple):
    """What the loss makes of each pair, float32 BxP each."""

    loss: jax.Array
    rewards: Sides  # beta times the log-ratio that the loss takes: a sum, or a mean over tokens.


def sum_by_side(values_BxL: jax.Array, segment_ids_BxL: jax.Array, n_pairs: int) -> Sides:
    """Add up the values of each segment of each row.

    A comparison of every position with every segment fuses into the sum: nothing of the size
    B x S x L is stored, and the order of the additions is fixed, which a scatter-add's on a GPU
    is not.

    Args:
        values_BxL: float32.
        segment_ids_BxL: int32, from 1; 0 is padding.
        n_pairs: P, the most pairs of a row.
    """
    segment_S = jnp.arange(1, 2 * n_pairs + 1)
    is_segment_BxSxL = segment_ids_BxL[:, None, :] == segment_S[:, None]
    sums_BxS = jnp.sum(jnp.where(is_segment_BxSxL, values_BxL[:, None, :], 0.0), axis=-1)
    return Sides(sums_BxS[:, 0::2], sums_BxS[:, 1::2])


def spread(sides: Sides, segment_ids_BxL: jax.Array) -> jax.Array:
    """Give every position the number of its segment, and padding 0: float32 BxL."""
    n_rows, n_pairs = sides.chosen.shape
    of_segment_BxS = jnp.stack(sides, axis=-1).reshape(n_rows, 2 * n_pairs)
    with_padding = jnp.pad(of_segment_BxS, ((0, 0), (1, 0)))
    return jnp.take_along_axis(with_padding, segment_ids_BxL, axis=1)


def count_pairs(segment_ids_BxL: jax.Array) -> jax.Array:
    """Return the number of pairs of a batch, a float32 scalar."""
    return jnp.sum(jnp.max(segment_ids_BxL, axis=1) // 2).astype(jnp.float32)


def pair_losses(
    log_probs: Sides, reference: Sides, weights: Sides, preference: PreferenceConfig
) -> PairLosses:
    """Compute the loss of each pair.

    Args:
        log_probs: The summed log-probabilities of the trained tokens of each side.
        reference: The same under the reference model.
        weights: The summed weights of those tokens: their number, mostly.
        preference: The config's section, its beta resolved.
    """
    ratios = Sides(*(own - other for own, other in zip(log_probs, reference, strict=True)))
    if preference.takes_means:
        ratios = Sides(*(r / jnp.maximum(w, 1e-6) for r, w in zip(ratios, weights, strict=True)))
    beta = preference.beta
    rewards = Sides(beta * ratios.chosen, beta * ratios.rejected)
    if preference.loss == "ipo":
        loss = jnp.square(ratios.chosen - ratios.rejected - 1 / (2 * beta))
    elif preference.loss == "apo_zero":
        loss = jax.nn.sigmoid(-rewards.chosen) + jax.nn.sigmoid(rewards.rejected)
    else:
        margin = rewards.chosen - rewards.rejected
        wrong = preference.label_smoothing
        loss = -jax.nn.log_sigmoid(margin)
        if wrong:
            loss = (1 - wrong) * loss - wrong * jax.nn.log_sigmoid(-margin)
    return PairLosses(loss, rewards)
