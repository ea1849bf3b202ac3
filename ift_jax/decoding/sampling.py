"""The choice of the next token from logits.

Shape suffixes: B rows, V vocabulary, C candidate tokens.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is chosen; hashable, so a static argument of jit."""

    temperature: float = 0.0  # 0 is greedy; otherwise logits are divided by it.
    top_k: int = 0  # If positive, only the k likeliest tokens.
    # If below 1, of those only the fewest likeliest that together reach this probability
    # (nucleus sampling, arXiv:1904.09751).
    top_p: float = 1.0
    # If positive, only tokens of at least this share of the likeliest one's probability
    # (arXiv:2407.01082).
    min_p: float = 0.0
    # Above 1, tokens of the prompt and of the answer so far become less likely. It comes before
    # everything else, and applies to greedy decoding too (CTRL, arXiv:1909.05858).
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        in_range = (
            0 <= self.temperature < math.inf
            and self.top_k >= 0
            and 0 < self.top_p <= 1
            and 0 <= self.min_p <= 1
            and 0 < self.repetition_penalty < math.inf
        )
        if not in_range:
            raise ValueError(
                "expected temperature and top_k >= 0, top_p in (0, 1], min_p in [0, 1] and "
                f"repetition_penalty > 0; got {self}"
            )


def penalize_seen(logits_BxV: jax.Array, seen_BxV: jax.Array, penalty: float) -> jax.Array:
    """Divide positive logits of seen tokens by the penalty, and multiply negative ones by it."""
    lower_BxV = jnp.where(logits_BxV < 0, logits_BxV * penalty, logits_BxV / penalty)
    return jnp.where(seen_BxV, lower_BxV, logits_BxV)


def candidate_tokens(logits_BxV: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """The tokens that may be drawn.

    Temperature comes first, then top_k, then top_p on what is left, then min_p, as is common.
    Without top_k and top_p nothing is sorted, and C = V.

    Returns:
        Their unnormalized log-probabilities (float32; -inf for what may not be drawn) and their
        ids, BxC each.
    """
    logits_BxC = logits_BxV.astype(jnp.float32) / sampling.temperature
    n_vocab = logits_BxV.shape[-1]
    ids_BxC = jnp.broadcast_to(jnp.arange(n_vocab), logits_BxC.shape)
    if sampling.top_k or sampling.top_p < 1.0:
        logits_BxC, ids_BxC = jax.lax.top_k(logits_BxC, min(sampling.top_k or n_vocab, n_vocab))
    if sampling.top_p < 1.0:
        p_BxC = jax.nn.softmax(logits_BxC, axis=-1)
        likelier_BxC = jnp.cumsum(p_BxC, axis=-1) - p_BxC
        # The likeliest token always stays: nothing is likelier, and top_p > 0.
        logits_BxC = jnp.where(likelier_BxC < sampling.top_p, logits_BxC, -jnp.inf)
    if sampling.min_p:
        least_Bx1 = logits_BxC.max(axis=-1, keepdims=True) + math.log(sampling.min_p)
        logits_BxC = jnp.where(logits_BxC >= least_Bx1, logits_BxC, -jnp.inf)
    return logits_BxC, ids_BxC


def sample_token(
    logits_BxV: jax.Array, keys_B: jax.Array, sampling: Sampling, seen_BxV: jax.Array | None = None
) -> jax.Array:
    """Choose one token for each row, from that row's key: int32 B.

    Args:
        logits_BxV: The logits, of any float dtype.
        keys_B: One random key per row; unused if the choice is greedy.
        sampling: How a token is chosen.
        seen_BxV: bool; tokens that the repetition penalty applies to, or None.
    """
    if seen_BxV is not None:
        logits_BxV = penalize_seen(logits_BxV, seen_BxV, sampling.repetition_penalty)
    if sampling.temperature == 0.0:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    logits_BxC, ids_BxC = candidate_tokens(logits_BxV, sampling)
    drawn_B = jax.vmap(jax.random.categorical)(keys_B, logits_BxC)
    return jnp.take_along_axis(ids_BxC, drawn_B[:, None], axis=1)[:, 0].astype(jnp.int32)
