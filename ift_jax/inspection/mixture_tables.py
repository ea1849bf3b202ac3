"""What a careful user wants to see of a mixture before training on it."""

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ift_jax.config.schema import Config
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import Variant
from ift_jax.errors import UserError, did_you_mean
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.text.tokenizers.load import Tokenizer

PERCENTILES = (50, 95, 100)
TRAINED, CONTEXT = "bold green", "dim"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("task", overflow="fold")  # A name is never cut.
    for name in columns:
        table.add_column(name, justify="right")
    return table


def counts_table(view: Mixture, tasks: Sequence[str]) -> Table:
    """Of these tasks: examples, tokens, lengths, and what was refused or cut, by reason."""
    names = ["examples", "tokens", "trained", *(f"len p{p}" for p in PERCENTILES)]
    table = _table("stores", *names, "encoder p100", "truncated", "control strings")
    table.add_column("dropped")
    for task in tasks:
        store = view.stores[view.tasks.index(task)]
        manifest = store.manifest
        refused = ", ".join(f"{why} {n}" for why, n in manifest["dropped"].items())
        tokens = manifest["tokens"] + manifest["encoder_tokens"]
        table.add_row(
            task,
            f"{len(store):,}",
            f"{tokens:,}",
            f"{manifest['trained_tokens'] / tokens:.0%}",
            *(f"{np.percentile(store.lengths, p):.0f}" for p in PERCENTILES),
            f"{store.encoder_lengths.max()}",
            f"{manifest['truncated_examples']:,}",
            f"{manifest['control_strings']:,}",
            refused or "0",
        )
    return table


def rates_table(plan: BatchPlan, view: Mixture) -> Table:
    """Of each task: the requested rate, and the realised shares of the planned run."""
    table = _table(
        "mixture", "rate", "requested", "of examples", "of tokens", "of trained tokens", "epochs"
    )
    # Expected: a task's visits, times the mean of its examples.
    tokens = [store.lengths.mean() + store.encoder_lengths.mean() for store in view.stores]
    trained = [store.trained_tokens.mean() for store in view.stores]
    amounts = plan.task_examples[:, None] * np.array([tokens, trained]).T
    for (task, row), rate, of_tokens in zip(
        plan.summary()["tasks"].items(), view.rates, amounts / amounts.sum(axis=0), strict=True
    ):
        shares = (row["requested_share"], row["realized_share"], *of_tokens)
        table.add_row(task, f"{rate:g}", *(f"{s:.3%}" for s in shares), f"{row['epochs']:.2f}")
    return table


def plan_lines(plan: BatchPlan) -> Iterator[str]:
    """The planned run in a few lines."""
    yield (
        f"run: {plan.n_steps:,} steps of {plan.batch_size} rows, "
        f"{plan.steps_per_epoch:,.1f} steps an epoch, {plan.n_examples:,} examples, "
        f"{plan.n_tokens + plan.n_encoder_tokens:,} tokens, {plan.n_trained_tokens:,} trained"
    )
    yield f"packing: fill {plan.fill:.2%} of {' + '.join(map(str, plan.capacities))} places"


def coloured(rendering: Variant, i: int, tokenizer: Tokenizer) -> Text:
    """An example's text, trained tokens coloured, control tokens visible."""
    text = Text()
    if len(encoder := rendering.encoder_tokens(i)):
        text.append(tokenizer.decode(encoder.tolist(), keep_special=True), CONTEXT)
        text.append("\n=> ")
    tokens, weights = rendering.tokens_and_weights(i)
    # Runs of tokens with one weight are decoded together: characters may span tokens.
    borders = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
    for start, stop in zip(borders[:-1], borders[1:], strict=True):
        weight = float(weights[start])
        piece = tokenizer.decode(tokens[start:stop].tolist(), keep_special=True)
        text.append(piece, TRAINED if weight else CONTEXT)
        if weight not in (0.0, 1.0):
            text.append(f" (weight {weight:g})", "yellow")
    return text


def examples(
    view: Mixture, tasks: Sequence[str], count: int, tokenizer: Tokenizer
) -> Iterator[tuple[str, Text]]:
    """Titles and coloured texts: `count` evenly spread examples of each task, each rendering."""
    for task in tasks:
        variants = view.stores[view.tasks.index(task)].variants
        for v, rendering in enumerate(variants):
            for i in np.linspace(0, len(rendering) - 1, min(count, len(rendering)), dtype=int):
                variant = f", variant {v}" if len(variants) > 1 else ""
                length = rendering.lengths[i] + rendering.encoder_lengths[i]
                title = f"{task}, example {rendering.indices[i]}{variant}, {length} tokens"
                yield title, coloured(rendering, int(i), tokenizer)


def open_mixture(
    config: Config, which: str, *, may_shrink: bool
) -> tuple[Config, Tokenizer, Mixture]:
    """As `open_or_prepare`, and the config of it; errors likewise.

    A mixture with little text gives a smaller tokenizer than asked for, if it `may_shrink`.
    """
    try:
        return config, *open_or_prepare(config, which)
    except UserError as error:
        bound = re.search(r"train_vocab_size.*expected at most (\d+)", str(error))
        if not (may_shrink and bound):
            raise
        small = dataclasses.replace(config.tokenizer, train_vocab_size=int(bound[1]))
        config = dataclasses.replace(config, tokenizer=small)
        return config, *open_or_prepare(config, which)


def show(
    config: Config,
    which: str,
    view: Mixture,
    tokenizer: Tokenizer,
    asked: Sequence[str],
    n_examples: int,
) -> None:
    """Prints tables and examples of a mixture's tasks: those that are asked for, or all.

    A UserError, if one is not in the mixture.
    """
    for task in asked:
        if task not in view.tasks:
            raise UserError(f"--task {task}: not in the mixture{did_you_mean(task, view.tasks)}")
    # A pipe or file gets whole lines: nothing may be cut to a guessed width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
    shown = asked or view.tasks
    console.print(counts_table(view, shown))
    if which == "train":
        plan = BatchPlan.from_config(config, view)
        console.print(rates_table(plan, view), *plan_lines(plan), sep="\n")
    for title, text in examples(view, shown, n_examples, tokenizer):
        console.rule(title, align="left")
        console.print(text, soft_wrap=True)
    console.rule()
    console.print(f"trained tokens are [{TRAINED}]coloured[/]; everything else is context")
