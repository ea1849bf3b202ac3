"""Log-probabilities of chosen tokens and of the likeliest ones, from logits or final states.

Shape suffixes: N positions of any rows, B rows, P prompt positions, D model width, V vocabulary,
K likeliest tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules

CHUNK = 1 << 22  # Logits that are made at once.


class LogProbs(NamedTuple):
    """Natural log-probabilities; the shapes have any leading axes."""

    chosen: jax.Array  # float32: of the given tokens.
    top: jax.Array  # float32, K at the end: of the likeliest tokens, likeliest first.
    top_ids: jax.Array  # int32, K at the end.

    def replicated(self) -> "LogProbs":
        """Whole on every device, so that every process can read them."""
        return LogProbs(*(rules.constrain(part, *[None] * part.ndim) for part in self))


def log_probs(logits_NxV: jax.Array, chosen_N: jax.Array, n_top: int) -> LogProbs:
    """Log-probabilities of the chosen and of the `n_top` likeliest tokens of each position."""
    logits_NxV = logits_NxV.astype(jnp.float32)
    total_Nx1 = jax.nn.logsumexp(logits_NxV, axis=-1, keepdims=True)
    chosen_Nx1 = jnp.take_along_axis(logits_NxV, chosen_N[:, None], axis=1)
    top_NxK, ids_NxK = jax.lax.top_k(logits_NxV, n_top)
    return LogProbs((chosen_Nx1 - total_Nx1)[:, 0], top_NxK - total_Nx1, ids_NxK)


def prompt_log_probs(
    model: Model, params: Params, x_BxPxD: jax.Array, tokens_BxP: jax.Array, n_top: int
) -> LogProbs:
    """Log-probabilities of a prompt's tokens after the first: Bx(P-1).

    The logits of all positions never exist at once: a chunk of them is made at a time.

    Args:
        model: An unrolled model.
        params: The model's parameters.
        x_BxPxD: The final states of the prompts.
        tokens_BxP: int32; the prompts.
        n_top: Likeliest tokens of each position.
    """
    B, P, D = x_BxPxD.shape
    n = max(1, CHUNK // (B * model.config.vocab_size))  # Positions of a chunk.
    n_chunks = -(-(P - 1) // n)
    padding = n_chunks * n - (P - 1)
    # Position p predicts token p + 1.
    x_BxPxD = jnp.pad(x_BxPxD[:, :-1], ((0, 0), (0, padding), (0, 0)))
    next_BxP = jnp.pad(tokens_BxP[:, 1:], ((0, 0), (0, padding)))

    def of_chunk(chunk: tuple[jax.Array, jax.Array]) -> LogProbs:
        x_BxnxD, next_Bxn = chunk
        logits = model.logits(params, x_BxnxD.reshape(B * n, D))
        found = log_probs(logits, next_Bxn.reshape(B * n), n_top)
        return LogProbs(*(part.reshape(B, n, *part.shape[1:]) for part in found))

    chunks = (
        x_BxPxD.reshape(B, n_chunks, n, D).swapaxes(0, 1),
        next_BxP.reshape(B, n_chunks, n).swapaxes(0, 1),
    )
    found = jax.lax.map(of_chunk, chunks)

    def joined(part: jax.Array) -> jax.Array:
        part = part.swapaxes(0, 1)
        return part.reshape(B, n_chunks * n, *part.shape[3:])[:, : P - 1]

    return LogProbs(*map(joined, found)).replicated()
