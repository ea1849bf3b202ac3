"""Loss normalization: what the sum of weighted token losses of a batch is divided by."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

# Keeps a batch without any trained token at a loss of 0 instead of NaN.
SMALLEST_DENOMINATOR = 1e-30


class NormalizedWeights(NamedTuple):
    """The loss of a batch is `sum(weights_BxL * token_loss_BxL) / denominator`."""

    weights_BxL: jax.Array
    denominator: jax.Array  # A positive float32 scalar.


def normalized_weights(
    weights_BxL: jax.Array, segment_ids_BxL: jax.Array, normalization: str, constant: float
) -> NormalizedWeights:
    """Return the weights of a global batch's tokens and its one denominator.

    Both depend on the whole batch, so the loss is the same however the sum is split later:
    over devices, microbatches, packed rows, or padding.

    Args:
        weights_BxL: float32 loss weights of the tokens, 0 where nothing is trained.
        segment_ids_BxL: int32, the example of a row that each token belongs to, from 1; 0 is
            padding.
        normalization: One of

            * "tokens": the mean over trained tokens, weighted by their weights.
            * "examples": the mean over examples of each example's own weighted mean. Packing
              never splits an example, so its weights are summed within its row and segment.
            * "constant": the sum divided by a fixed number (T5X's configs use batch size times
              target length).
            * "sum": the plain sum (T5X's default).
        constant: The denominator of "constant".

    Returns:
        The float32 weights and the denominator.
    """
    if normalization == "examples":
        return _weights_by_example(weights_BxL, segment_ids_BxL)
    if normalization == "tokens":
        denominator = jnp.sum(weights_BxL)
    elif normalization == "constant":
        denominator = jnp.float32(constant)
    else:
        denominator = jnp.float32(1.0)
    return NormalizedWeights(weights_BxL, jnp.maximum(denominator, SMALLEST_DENOMINATOR))


def _weights_by_example(weights_BxL: jax.Array, segment_ids_BxL: jax.Array) -> NormalizedWeights:
    """Divide each token's weight by the sum of its example's weights."""
    n_segments = weights_BxL.shape[1] + 1  # A row of L tokens holds at most L examples.

    def sums_of_row(weights_L: jax.Array, segment_ids_L: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(weights_L, segment_ids_L, n_segments)

    sums_BxS = jax.vmap(sums_of_row)(weights_BxL, segment_ids_BxL)
    example_sum_BxL = jnp.take_along_axis(sums_BxS, segment_ids_BxL, axis=1)
    has_weight_BxL = example_sum_BxL > 0
    shares_BxL = weights_BxL / jnp.maximum(example_sum_BxL, SMALLEST_DENOMINATOR)
    normalized_BxL = jnp.where(has_weight_BxL, shares_BxL, 0.0)
    # The examples are counted, not summed by weight: their number is exact in float32.
    n_examples = jnp.sum(sums_BxS[:, 1:] > 0).astype(jnp.float32)
    return NormalizedWeights(normalized_BxL, jnp.maximum(n_examples, SMALLEST_DENOMINATOR))
