"""The router of a mixture of experts: which experts a token goes to, and what is counted of that.

Shape suffixes: N tokens, D model width, E experts, K experts of a token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Routing(NamedTuple):
    """The experts of each token."""

    expert_NxK: jax.Array  # int32; E for a token of padding, which goes to none.
    weight_NxK: jax.Array  # float32: what the experts' outputs are multiplied by; 0 in padding.


class RouterSums(NamedTuple):
    """Sums over the tokens of one layer, without padding; float32.

    A scan over layers puts an axis of layers in front; a layer without experts has zeros. Sums of
    microbatches are added.
    """

    load_E: jax.Array  # How many tokens went to each expert.
    probability_E: jax.Array  # The probabilities of each expert. These have a gradient.
    square_log_z: jax.Array  # The square of the logarithm of the softmax's denominator. So has it.
    entropy: jax.Array  # The entropy of the probabilities, in nats.
    dropped: jax.Array  # Chosen experts that computed nothing for their token.


def zero_router_sums(n_experts: int, stack: tuple[int, ...] = ()) -> RouterSums:
    """The sums over no tokens: of one layer, or of layers that a leading axis numbers."""
    by_expert = jnp.zeros((*stack, n_experts), jnp.float32)
    by_layer = jnp.zeros(stack, jnp.float32)
    return RouterSums(by_expert, by_expert, by_layer, by_layer, by_layer)


def route(
    x_NxD: jax.Array,
    w_DxE: jax.Array,
    bias_E: jax.Array | None,
    is_token_N: jax.Array,
    *,
    experts_per_token: int,
    normalize: bool,
) -> tuple[Routing, RouterSums]:
    """Choose the experts of each token, in float32 whatever the dtype of the states.

    Args:
        x_NxD: The states.
        w_DxE: The weight, float32.
        bias_E: Added to the logits.
        is_token_N: bool; False in padding.
        experts_per_token: K; the likeliest experts are chosen.
        normalize: Whether the weights of a token's experts are divided by their sum.

    Returns:
        The experts, and the sums over these tokens; `dropped` is zero until the experts have run.
    """
    n_experts = w_DxE.shape[1]
    logits_NxE = jnp.matmul(x_NxD.astype(jnp.float32), w_DxE, precision="highest")
    if bias_E is not None:
        logits_NxE += bias_E
    log_p_NxE = jax.nn.log_softmax(logits_NxE)
    p_NxE = jnp.exp(log_p_NxE)
    weight_NxK, expert_NxK = jax.lax.top_k(p_NxE, experts_per_token)
    if normalize:
        weight_NxK /= weight_NxK.sum(axis=-1, keepdims=True)

    is_token_Nx1 = is_token_N[:, None]
    routing = Routing(
        jnp.where(is_token_Nx1, expert_NxK, n_experts),
        jnp.where(is_token_Nx1, weight_NxK, 0.0),
    )

    def over_tokens(values: jax.Array) -> jax.Array:
        is_token = is_token_N.reshape(-1, *[1] * (values.ndim - 1))
        return jnp.where(is_token, values, 0.0).sum(axis=0)

    load_E = jnp.bincount(routing.expert_NxK.reshape(-1), length=n_experts).astype(jnp.float32)
    sums = RouterSums(
        load_E=load_E,
        probability_E=over_tokens(p_NxE),
        square_log_z=over_tokens(jnp.square(jax.nn.logsumexp(logits_NxE, axis=-1))),
        entropy=jax.lax.stop_gradient(over_tokens(-(p_NxE * log_p_NxE).sum(axis=-1))),
        dropped=jnp.zeros((), jnp.float32),
    )
    return routing, sums
