"""The losses of the routers of a mixture of experts, normalized over the global batch.

The load-balancing loss (Shazeer et al. 2017; Fedus et al. 2021, arXiv:2101.03961, equations 4-6) is

    E * sum over experts e of f[e] * P[e],

where f[e] is the number of tokens that went to expert e and P[e] the sum of its probabilities, each
divided by the number of (token, layer) pairs. As in `transformers`, both are taken over all layers
before they are multiplied, and over all tokens but padding, whether they are trained or not. Since
f has no gradient, the gradient is linear in P once f is known: microbatches add up to the gradient
of the whole batch if each is given the f of the whole batch, which takes a forward pass over all
microbatches before the first gradient. The mean of the microbatches' own losses would be another
loss, one that also asks each microbatch to be balanced.

The z-loss (Zoph et al. 2022, arXiv:2202.08906, equation 5) is the mean over tokens and layers of
the squared logarithm of the router's softmax denominator.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.config.schema import LossConfig
from ift_jax.models.router import RouterSums


class GlobalRouting(NamedTuple):
    """What the routers' losses need to know of the global batch.

    Attributes:
        n_pairs: How many pairs of a token and a layer with experts there are, without padding.
        load_E: How many of them went to each expert, over all layers; None: those of the batch at
            hand, which is the whole batch.
        denominator: What the loss is divided by later; the routers' losses are multiplied by it.
    """

    n_pairs: jax.Array
    load_E: jax.Array | None
    denominator: jax.Array


def router_loss(sums: RouterSums, batch: GlobalRouting, loss: LossConfig) -> jax.Array:
    """Return what the tokens of a (micro)batch add to the loss, times the denominator.

    Args:
        sums: The sums over these tokens, with a leading axis of layers.
        batch: The global batch.
        loss: The weights of the two losses.
    """
    n_experts = sums.load_E.shape[1]
    n_pairs = jnp.maximum(batch.n_pairs, 1.0)
    load_E = batch.load_E if batch.load_E is not None else load_of_experts(sums)
    probability_E = sums.probability_E.sum(axis=0)
    balance = n_experts * jnp.sum(load_E / n_pairs * (probability_E / n_pairs))
    z_loss = sums.square_log_z.sum() / n_pairs
    return batch.denominator * (loss.router_balance * balance + loss.router_z_loss * z_loss)


def load_of_experts(sums: RouterSums) -> jax.Array:
    """Return how many tokens went to each expert, over all layers; it has no gradient."""
    return jax.lax.stop_gradient(sums.load_E.sum(axis=0))
