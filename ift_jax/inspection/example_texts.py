"""Examples of a store as text, with the trained tokens in color, or between marks."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.text import Text

from ift_jax.data.mixture import Mixture
from ift_jax.data.store import Side, Variant
from ift_jax.inspection.trained_marks import Run, choose_marks
from ift_jax.io.text_tables import wrapped
from ift_jax.text.tokenizers.base import Tokenizer

TRAINED = "bold green"
CONTEXT = "dim"
_WEIGHT = "yellow"
_AFTER_ENCODER = "\n=> "


class ShownExample(NamedTuple):
    """An example to print."""

    title: str
    runs: list[Run]


def example_texts(
    mixture: Mixture, tasks: Sequence[str], count: int, tokenizer: Tokenizer
) -> Iterator[ShownExample]:
    """Yield `count` evenly spread examples of each task, in each variant; a pair side by side.

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
                head = f"{task}, example {variant.indices[i]}{in_variant}"
                for side in variant.sides(i):
                    length = len(side.tokens) + variant.encoder_lengths[i]
                    of_side = f", {side.name}" if side.name else ""
                    title = f"{head}{of_side}, {length} tokens"
                    yield ShownExample(title, _runs_of_weight(variant, i, side, tokenizer))


def _runs_of_weight(variant: Variant, i: int, side: Side, tokenizer: Tokenizer) -> list[Run]:
    """Return the text of a side of an example by loss weight, with control tokens visible."""
    runs = []
    encoder_tokens = variant.encoder_tokens(i)
    if len(encoder_tokens):
        runs.append(Run(tokenizer.decode(encoder_tokens.tolist(), keep_special=True), 0.0))
        runs.append(Run(_AFTER_ENCODER, 0.0))
    _, tokens, weights = side
    # A run of tokens with one weight is decoded whole, because a character may span tokens.
    changes = np.flatnonzero(np.diff(weights)) + 1
    borders = [0, *changes.tolist(), len(weights)]
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        text = tokenizer.decode(tokens[start:stop].tolist(), keep_special=True)
        runs.append(Run(text, float(weights[start])))
    return runs


def print_examples(examples: Sequence[ShownExample], console: Console) -> None:
    """Print examples and how to read them: in color, or with marks where there are no colors.

    Args:
        examples: The examples.
        console: Where to print. A file, a pipe, NO_COLOR and a terminal that has no colors get
            marks.
    """
    if not examples:
        return
    width = console.width
    has_colors = console.color_system is not None and not console.no_color
    texts = [run.text for example in examples for run in example.runs]
    marks = choose_marks(texts, console.encoding)
    for title, runs in examples:
        print(*wrapped(title, width), "─" * width, sep="\n", file=console.file)
        if has_colors:
            console.print(_colored(runs), soft_wrap=True)
        else:
            print(marks.marked(runs), file=console.file)
    print("─" * width, file=console.file)
    if has_colors:
        console.print(f"trained tokens are [{TRAINED}]colored[/]; everything else is context")
    else:
        print(*wrapped(marks.legend, width), sep="\n", file=console.file)


def _colored(runs: Sequence[Run]) -> Text:
    text = Text()
    for run in runs:
        text.append(run.text, TRAINED if run.weight else CONTEXT)
        if run.weight not in (0.0, 1.0):
            text.append(f" (weight {run.weight:g})", _WEIGHT)
    return text
