"""Examples of a store as text, with the trained tokens in color."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rich.text import Text

from ift_jax.data.mixture import Mixture
from ift_jax.data.store import Variant
from ift_jax.text.tokenizers.base import Tokenizer

TRAINED = "bold green"
CONTEXT = "dim"
_WEIGHT = "yellow"


class ShownExample(NamedTuple):
    """An example to print."""

    title: str
    text: Text


def example_texts(
    mixture: Mixture, tasks: Sequence[str], count: int, tokenizer: Tokenizer
) -> Iterator[ShownExample]:
    """Yield `count` evenly spread examples of each task, in each variant.

    Args:
        mixture: The mixture.
        tasks: Tasks of it.
        count: At most this many examples per task and variant.
        tokenizer: The tokenizer of the stores.
    """
    for task in tasks:
        variants = mixture.stores[mixture.tasks.index(task)].variants
        for number, variant in enumerate(variants):
            in_variant = f", variant {number}" if len(variants) > 1 else ""
            spread = np.linspace(0, len(variant) - 1, min(count, len(variant)), dtype=int)
            for i in spread.tolist():
                length = variant.lengths[i] + variant.encoder_lengths[i]
                title = f"{task}, example {variant.indices[i]}{in_variant}, {length} tokens"
                yield ShownExample(title, colored_text(variant, i, tokenizer))


def colored_text(variant: Variant, i: int, tokenizer: Tokenizer) -> Text:
    """Return the text of an example, with trained tokens colored and control tokens visible."""
    text = Text()
    encoder_tokens = variant.encoder_tokens(i)
    if len(encoder_tokens):
        text.append(tokenizer.decode(encoder_tokens.tolist(), keep_special=True), CONTEXT)
        text.append("\n=> ")
    tokens, weights = variant.tokens_and_weights(i)
    # A run of tokens with one weight is decoded whole, because a character may span tokens.
    changes = np.flatnonzero(np.diff(weights)) + 1
    borders = [0, *changes.tolist(), len(weights)]
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        weight = float(weights[start])
        run = tokenizer.decode(tokens[start:stop].tolist(), keep_special=True)
        text.append(run, TRAINED if weight else CONTEXT)
        if weight not in (0.0, 1.0):
            text.append(f" (weight {weight:g})", _WEIGHT)
    return text
