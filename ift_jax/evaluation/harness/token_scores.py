"""Log-likelihoods of continuations that come one by one, as lm-evaluation-harness asks for them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ift_jax.config.schema import Config
from ift_jax.decoding import Generator
from ift_jax.evaluation.rank_choices import Choices, Row, Score, batches, score_rows


class TokenPair(NamedTuple):
    """A continuation and what it follows, both as ids and not empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


def score_pairs(
    generator: Generator, config: Config, pairs: Sequence[TokenPair], batch_size: int
) -> Iterator[dict[int, Score]]:
    """Score every continuation; those of the same context come together, and it is read once.

    Args:
        generator: The model, whose layout of the weights is used.
        config: The run's config.
        pairs: What is scored.
        batch_size: The continuations that are scored together.

    Yields:
        The scores of some pairs, by their place.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.context, []).append(place)
    examples = [
        Choices(list(context), [list(pairs[i].continuation) for i in of_context], len(context))
        for context, of_context in places.items()
    ]
    place_of_row = {
        Row(example, choice): place
        for example, of_context in enumerate(places.values())
        for choice, place in enumerate(of_context)
    }
    size, all_batches = batches(examples, batch_size)
    for rows in all_batches:
        with generator.on_mesh():
            found = score_rows(generator.model, generator.params, config, examples, rows, size)
        yield {place_of_row[row]: score for row, score in found.items()}
