"""Random choices of synthesis, each a function of (seed, what it is for, round, slot) alone."""

from collections.abc import Sequence
from typing import TypeVar

from ift_jax.data.randomness import Draws, stable_hash

T = TypeVar("T")


def draws_of(seed: int, what: str, number: int, slot: int) -> Draws:
    """Return the stream of draws for one slot of a round."""
    return Draws(seed, "synthesis", what, number, slot)


def seed_of(seed: int, what: str, number: int, slot: int) -> int:
    """Return the seed that a request of a round is sampled with; endpoints take 31 bits."""
    return stable_hash(seed, "synthesis", what, number, slot, bits=31)


def some_of(draws: Draws, options: Sequence[T], k: int) -> list[T]:
    """Return `k` of the options, or all if there are fewer, without copying them first."""
    if k >= len(options):
        return draws.sample(options, len(options))
    chosen: list[int] = []
    while len(chosen) < k:
        place = draws.below(len(options))
        if place not in chosen:
            chosen.append(place)
    return [options[place] for place in chosen]
