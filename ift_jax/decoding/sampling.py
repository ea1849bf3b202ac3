"""The choice of the next token from logits.

The settings of a row are arrays (`SamplingRows`), so that requests with different ones share a
batch and a compiled program. Only what the program must contain is static (`SamplingProgram`).
Neither changes what is drawn for a row: noise belongs to a token, or to its rank.

Shape suffixes: B rows, V vocabulary, C candidate tokens.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.errors import UserError

_LARGEST = 2**31 - 1  # The settings of rows are int32.
# Beyond these a temperature changes no choice, but is not finite or is 0 in float32, or makes a
# logit infinite.
_TEMPERATURES = (1e-30, 1e30)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a token is chosen."""

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
        bounds = {
            "temperature": (0 <= self.temperature < math.inf, "0 or more"),
            "top_k": (0 <= self.top_k <= _LARGEST, f"0 to {_LARGEST:,}"),
            "top_p": (0 < self.top_p <= 1, "more than 0 and at most 1"),
            "min_p": (0 <= self.min_p <= 1, "0 to 1"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "more than 0"),
        }
        for name, (is_in, expected) in bounds.items():
            if not is_in:
                raise UserError(f"{name}: expected {expected}; got {getattr(self, name):g}")

    def check_all_is_read(self) -> None:
        """Check that nothing was asked for that greedy decoding would ignore.

        Raises:
            UserError: It was. Clients of OpenAI's API send such settings; a person means them.
        """
        drawing = {"top_k": self.top_k > 0, "top_p": self.top_p < 1, "min_p": self.min_p > 0}
        for name, is_given in drawing.items():
            if is_given and self.temperature == 0:
                raise UserError(
                    f"{name}: {getattr(self, name):g} needs a temperature above 0; at 0 the most "
                    "likely token is always taken"
                )

    @property
    def ranks_tokens(self) -> bool:
        """Whether tokens are drawn by their rank: candidates must be sorted."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1)


class SamplingRows(NamedTuple):
    """The settings of each row of a batch, as arrays of NumPy or JAX."""

    temperature_B: Any  # float32.
    top_k_B: Any  # int32.
    top_p_B: Any  # float32.
    min_p_B: Any  # float32.
    penalty_B: Any  # float32.

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> "SamplingRows":
        """The rows as arrays."""
        return cls(
            np.array([_finite_divisor(row.temperature) for row in rows], np.float32),
            np.array([row.top_k for row in rows], np.int32),
            np.array([row.top_p for row in rows], np.float32),
            np.array([row.min_p for row in rows], np.float32),
            np.array([row.repetition_penalty for row in rows], np.float32),
        )


def _finite_divisor(temperature: float) -> float:
    """Return a temperature that draws the same, and by which a logit can be divided; 0 stays 0."""
    least, most = _TEMPERATURES
    return min(max(temperature, least), most) if temperature > 0 else 0.0


class SamplingProgram(NamedTuple):
    """What a program that chooses tokens contains; hashable, so a static argument of jit."""

    draws: bool = False  # Whether any row draws; otherwise all are greedy.
    n_candidates: int = 0  # Tokens that are sorted; 0: none, because no row needs ranks.
    penalizes: bool = False

    @classmethod
    def of(cls, rows: Sequence[Sampling], n_vocab: int) -> "SamplingProgram":
        """The program that serves these rows."""
        drawing = [row for row in rows if row.temperature > 0]
        n_candidates = 0
        if any(row.ranks_tokens for row in drawing):
            # A power of two, so that few programs are compiled.
            most = max(row.top_k or n_vocab for row in drawing)
            n_candidates = min(1 << (most - 1).bit_length(), n_vocab)
        return cls(
            draws=bool(drawing),
            n_candidates=n_candidates,
            penalizes=any(row.repetition_penalty != 1 for row in rows),
        )


def penalize_seen(logits_BxV: jax.Array, seen_BxV: jax.Array, penalty_B: Any) -> jax.Array:
    """Divide positive logits of seen tokens by the penalty, and multiply negative ones by it."""
    penalty_Bx1 = jnp.asarray(penalty_B)[..., None]
    lower_BxV = jnp.where(logits_BxV < 0, logits_BxV * penalty_Bx1, logits_BxV / penalty_Bx1)
    return jnp.where(seen_BxV, lower_BxV, logits_BxV)


def candidate_tokens(
    logits_BxV: jax.Array, rows: SamplingRows, n_candidates: int
) -> tuple[jax.Array, jax.Array]:
    """The tokens that may be drawn.

    Temperature comes first, then top_k, then top_p on what is left, then min_p, as is common.
    Without `n_candidates` nothing is sorted, and C = V.

    Returns:
        Their unnormalized log-probabilities (float32; -inf for what may not be drawn) and their
        ids, BxC each.
    """
    temperature_Bx1, top_k_Bx1, top_p_Bx1, min_p_Bx1, _ = (
        jnp.asarray(setting)[:, None] for setting in rows
    )
    greedy_Bx1 = temperature_Bx1 == 0  # Such a row's candidates are not used.
    logits_BxC = logits_BxV.astype(jnp.float32) / jnp.where(greedy_Bx1, 1.0, temperature_Bx1)
    ids_BxC = jnp.broadcast_to(jnp.arange(logits_BxV.shape[-1]), logits_BxC.shape)
    if n_candidates:
        logits_BxC, ids_BxC = jax.lax.top_k(logits_BxC, n_candidates)
        rank_C = jnp.arange(n_candidates)
        in_top_k_BxC = (rank_C < top_k_Bx1) | (top_k_Bx1 == 0)
        logits_BxC = jnp.where(in_top_k_BxC, logits_BxC, -jnp.inf)
        p_BxC = jax.nn.softmax(logits_BxC, axis=-1)
        likelier_BxC = jnp.cumsum(p_BxC, axis=-1) - p_BxC
        # The likeliest token always stays: nothing is likelier, and top_p > 0.
        in_top_p_BxC = (likelier_BxC < top_p_Bx1) | (top_p_Bx1 >= 1)
        logits_BxC = jnp.where(in_top_p_BxC, logits_BxC, -jnp.inf)
    least_Bx1 = logits_BxC.max(axis=-1, keepdims=True) + jnp.log(min_p_Bx1)
    return jnp.where(logits_BxC >= least_Bx1, logits_BxC, -jnp.inf), ids_BxC


def sample_token(
    logits_BxV: jax.Array,
    keys_B: jax.Array,
    rows: SamplingRows,
    program: SamplingProgram,
    seen_BxV: jax.Array | None = None,
) -> jax.Array:
    """Choose one token for each row, from that row's key: int32 B.

    Args:
        logits_BxV: The logits, of any float dtype.
        keys_B: One random key per row; unused if the choice is greedy.
        rows: How a token is chosen.
        program: That of the rows.
        seen_BxV: bool; tokens that the repetition penalty applies to, if the program penalizes.
    """
    if seen_BxV is not None:
        logits_BxV = penalize_seen(logits_BxV, seen_BxV, rows.penalty_B)
    likeliest_B = jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    if not program.draws:
        return likeliest_B
    logits_BxC, ids_BxC = candidate_tokens(logits_BxV, rows, program.n_candidates)
    n = logits_BxC.shape[1]
    # Each number depends on (key, place) alone, not on C: a row draws the same in any batch.
    noise_BxC = jax.vmap(lambda key: jax.random.gumbel(key, (n,), jnp.float32))(keys_B)
    if program.n_candidates == logits_BxV.shape[1]:
        # Rows that need no ranks draw as in a program that does not sort: noise by id.
        by_rank_B = (jnp.asarray(rows.top_k_B) > 0) | (jnp.asarray(rows.top_p_B) < 1)
        by_id_BxC = jnp.take_along_axis(noise_BxC, ids_BxC, axis=1)
        noise_BxC = jnp.where(by_rank_B[:, None], noise_BxC, by_id_BxC)
    drawn_Bx1 = jnp.argmax(logits_BxC + noise_BxC, axis=-1, keepdims=True)
    drawn_B = jnp.take_along_axis(ids_BxC, drawn_Bx1, axis=1)[:, 0].astype(jnp.int32)
    return jnp.where(jnp.asarray(rows.temperature_B) == 0, likeliest_B, drawn_B)
