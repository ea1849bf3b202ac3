"""The choice of the next token from logits. Shape suffixes: B rows, V vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is chosen; hashable, so a static argument of jit.

    Attributes:
        temperature: 0 is greedy; else logits are divided by it.
        top_k: > 0: only the k likeliest tokens.
        top_p: < 1: of those, the fewest likeliest that together reach this probability
            (Holtzman et al. 2020, arXiv:1904.09751).
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"temperature and top_k are >= 0, top_p in (0, 1]; got {self}")


def candidates(logits_BxV: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """The tokens that may be drawn: their log-weights (-inf: not) and ids, BxC each.

    Temperature first, then top_k, then top_p on what is left, as is common. Without top_k and
    top_p nothing is sorted and C = V.
    """
    logits_BxV = logits_BxV.astype(jnp.float32) / sampling.temperature
    n_vocab = logits_BxV.shape[-1]
    if not sampling.top_k and sampling.top_p == 1.0:
        ids_BxV = jnp.broadcast_to(jnp.arange(n_vocab), logits_BxV.shape)
        return logits_BxV, ids_BxV
    k = min(sampling.top_k or n_vocab, n_vocab)
    logits_BxC, ids_BxC = jax.lax.top_k(logits_BxV, k)
    p_BxC = jax.nn.softmax(logits_BxC, axis=-1)
    likelier_BxC = jnp.cumsum(p_BxC, axis=-1) - p_BxC
    # The likeliest token always stays: nothing is likelier, and top_p > 0.
    return jnp.where(likelier_BxC < sampling.top_p, logits_BxC, -jnp.inf), ids_BxC


def choose(logits_BxV: jax.Array, keys_B: jax.Array, sampling: Sampling) -> jax.Array:
    """One token id a row, int32, from that row's key."""
    if sampling.temperature == 0.0:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    logits_BxC, ids_BxC = candidates(logits_BxV, sampling)
    drawn_B = jax.vmap(jax.random.categorical)(keys_B, logits_BxC)
    return jnp.take_along_axis(ids_BxC, drawn_B[:, None], axis=1)[:, 0].astype(jnp.int32)
