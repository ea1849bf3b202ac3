"""What a careful user wants to see of a mixture before training on it."""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from ift_jax.config.schema import Config
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError, counted, did_you_mean
from ift_jax.inspection.example_texts import TRAINED, example_texts
from ift_jax.preparation.row_notes import row_notes
from ift_jax.text.tokenizers.base import Tokenizer

PERCENTILES = (50, 95, 100)


def check_tasks(mixture: Mixture, asked: Sequence[str]) -> None:
    """Check the tasks that are asked for.

    Raises:
        UserError: A task is not in the mixture.
    """
    for task in asked:
        if task not in mixture.tasks:
            hint = did_you_mean(task, mixture.tasks)
            raise UserError(f"--task {task}: not in the mixture{hint}")


def show(
    config: Config,
    which: str,
    mixture: Mixture,
    tokenizer: Tokenizer,
    asked: Sequence[str],
    n_examples: int,
) -> None:
    """Print tables and examples of a mixture.

    Args:
        config: A run of the mixture.
        which: "train", whose planned run is shown too, "eval" or "heldout".
        mixture: The mixture.
        tokenizer: The tokenizer of its stores.
        asked: Tasks to show; all if there are none.
        n_examples: Examples a task.
    """
    # A pipe or file gets whole lines: nothing may be cut to a guessed width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
    tasks = asked or mixture.tasks
    console.print(counts_table(mixture, tasks))
    for task in tasks:
        manifest = mixture.stores[mixture.tasks.index(task)].manifest
        for note in row_notes(task, manifest):
            console.print(note, markup=False, soft_wrap=True)
    if which == "train":
        plan = BatchPlan.from_config(config, mixture)
        console.print(rates_table(plan, mixture), *plan_lines(plan), sep="\n")
    for example in example_texts(mixture, tasks, n_examples, tokenizer):
        console.rule(example.title, align="left")
        console.print(example.text, soft_wrap=True)
    console.rule()
    console.print(f"trained tokens are [{TRAINED}]colored[/]; everything else is context")


def counts_table(mixture: Mixture, tasks: Sequence[str]) -> Table:
    """Return the examples, tokens and lengths of tasks, and what was dropped or truncated."""
    table = _table(
        "stores",
        "in source",
        "examples",
        "tokens",
        "trained",
        *(f"len p{percentile}" for percentile in PERCENTILES),
        "encoder p100",
        "truncated",
        "control strings",
    )
    table.add_column("dropped")
    for task in tasks:
        store = mixture.stores[mixture.tasks.index(task)]
        manifest = store.manifest
        tokens = manifest["tokens"] + manifest["encoder_tokens"]
        dropped = ", ".join(f"{reason} {n}" for reason, n in manifest["dropped"].items())
        table.add_row(
            task,
            "?" if manifest["input_examples"] is None else f"{manifest['input_examples']:,}",
            f"{len(store):,}",
            f"{tokens:,}",
            f"{manifest['trained_tokens'] / tokens:.0%}",
            *(f"{length:.0f}" for length in np.percentile(store.lengths, PERCENTILES)),
            f"{store.encoder_lengths.max()}",
            f"{manifest['truncated_examples']:,}",
            f"{manifest['control_strings']:,}",
            dropped or "0",
        )
    return table


def rates_table(plan: BatchPlan, mixture: Mixture) -> Table:
    """Return the requested rate of each task, and its realized shares of the planned run.

    The shares of tokens are expected ones: a task's visits times the mean of its examples.
    """
    table = _table(
        "mixture", "rate", "requested", "of examples", "of tokens", "of trained tokens", "epochs"
    )
    stores = mixture.stores
    mean_tokens = np.array([s.lengths.mean() + s.encoder_lengths.mean() for s in stores])
    mean_trained = np.array([store.trained_tokens.mean() for store in stores])
    tokens = plan.task_examples * mean_tokens
    trained = plan.task_examples * mean_trained
    planned = plan.summary()["tasks"]
    for task, rate, of_tokens, of_trained in zip(
        mixture.tasks, mixture.rates, tokens / tokens.sum(), trained / trained.sum(), strict=True
    ):
        row = planned[task]
        shares = (row["requested_share"], row["realized_share"], of_tokens, of_trained)
        cells = [f"{share:.3%}" for share in shares]
        table.add_row(task, f"{rate:g}", *cells, f"{row['epochs']:.2f}")
    return table


def plan_lines(plan: BatchPlan) -> Iterator[str]:
    """Yield the planned run in a few lines."""
    yield (
        f"run: {counted(plan.n_steps, 'step')} of {counted(plan.batch_size, 'row')}, "
        f"{plan.steps_per_epoch:,.1f} steps per epoch, {counted(plan.n_examples, 'example')}, "
        f"{plan.n_tokens + plan.n_encoder_tokens:,} tokens, {plan.n_trained_tokens:,} trained"
    )
    yield f"packing: fill {plan.fill:.2%} of {' + '.join(map(str, plan.capacities))} positions"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("task", overflow="fold")  # A name is never cut.
    for name in columns:
        table.add_column(name, justify="right")
    return table
