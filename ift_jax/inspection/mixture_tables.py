"""What a careful user wants to see of a mixture before training on it."""

import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console

from ift_jax.config.schema import Config
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError, counted, offered
from ift_jax.inspection.example_texts import example_texts, print_examples
from ift_jax.inspection.mixture_summary import summary_lines, tasks_of_examples
from ift_jax.inspection.task_counts import TaskCounts, TaskShares, task_counts, task_shares
from ift_jax.io.text_tables import MOST_LISTED, Column, output_width, table_lines, wrapped
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
            raise UserError(f"--task {task}: not in the mixture{offered(task, mixture.tasks)}")


def show(
    config: Config,
    which: str,
    mixture: Mixture,
    tokenizer: Tokenizer,
    asked: Sequence[str],
    n_examples: int,
    *,
    list_all: bool = False,
) -> None:
    """Print tables and examples of a mixture; a summary of them if it has many tasks.

    Args:
        config: A run of the mixture.
        which: "train", whose planned run is shown too, "eval" or "heldout".
        mixture: The mixture.
        tokenizer: The tokenizer of its stores.
        asked: Tasks to show; all if there are none.
        n_examples: Examples a task.
        list_all: Whether every task is listed, however many there are.
    """
    width = output_width()
    tasks = asked or mixture.tasks
    plan = BatchPlan.from_config(config, mixture) if which == "train" else None
    counts = task_counts(mixture, tasks)
    shares = task_shares(plan, mixture) if plan else {}
    if asked or list_all or len(tasks) <= MOST_LISTED:
        lines = _listing(counts, shares, mixture, width)
    else:
        stores = mixture.stores
        lines = summary_lines(counts, shares, [store.manifest for store in stores], width)
        tasks = tasks_of_examples(counts)
    print(*lines, sep="\n")
    for line in plan_lines(plan) if plan else ():
        print(*wrapped(line, width), sep="\n")
    console = Console(highlight=False, width=width, file=sys.stdout)
    print_examples(list(example_texts(mixture, tasks, n_examples, tokenizer)), console)


def _listing(
    counts: Sequence[TaskCounts], shares: Mapping[str, TaskShares], mixture: Mixture, width: int
) -> Iterator[str]:
    """Yield a line for each task in each table, and what there is to say of its rows."""
    yield "stores"
    yield from counts_lines(counts, width)
    for each in counts:
        manifest = mixture.stores[mixture.tasks.index(each.task)].manifest
        for note in row_notes(each.task, manifest):
            yield from wrapped(note, width)
    if shares:
        yield "mixture"
        yield from rates_lines({each.task: shares[each.task] for each in counts}, width)


def counts_lines(counts: Sequence[TaskCounts], width: int) -> Iterator[str]:
    """Yield the examples, tokens and lengths of tasks, and what was dropped or truncated.

    What no task has gets no column, but is named below the table.
    """
    percentiles = [np.percentile(each.lengths, PERCENTILES) for each in counts]
    columns = [
        Column("in source", [_number(each.in_source) for each in counts]),
        Column("examples", [f"{each.examples:,}" for each in counts]),
        Column("tokens", [f"{each.tokens:,}" for each in counts]),
        Column("trained", [f"{each.trained_share:.0%}" for each in counts]),
        *(
            Column(f"len p{percentile}", [f"{lengths[k]:.0f}" for lengths in percentiles])
            for k, percentile in enumerate(PERCENTILES)
        ),
    ]
    rarer = [
        Column("encoder p100", [f"{each.encoder_lengths.max()}" for each in counts]),
        Column("truncated", [f"{each.truncated:,}" for each in counts]),
        Column("control strings", [f"{each.control_strings:,}" for each in counts]),
        Column("dropped", [_reasons(each.dropped) for each in counts], left=True),
    ]
    present = [column for column in rarer if set(column.cells) != {"0"}]
    names = Column("task", [each.task for each in counts], left=True)
    yield from table_lines([names], [*columns, *present], width)
    if absent := [column.head for column in rarer if column not in present]:
        yield from wrapped(f"0 in every task: {', '.join(absent)}", width, indent=2)


def _number(n: int | None) -> str:
    return "?" if n is None else f"{n:,}"


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in dropped.items()) or "0"


def rates_lines(shares: Mapping[str, TaskShares], width: int) -> list[str]:
    """Return the requested rate of each task, and its shares of the planned run."""
    rows = list(shares.values())
    columns = [
        Column("rate", [f"{row.rate:g}" for row in rows]),
        Column("requested", [f"{row.requested:.3%}" for row in rows]),
        Column("of examples", [f"{row.examples:.3%}" for row in rows]),
        Column("of tokens", [f"{row.tokens:.3%}" for row in rows]),
        Column("of trained tokens", [f"{row.trained_tokens:.3%}" for row in rows]),
        Column("epochs", [f"{row.epochs:.2f}" for row in rows]),
    ]
    return table_lines([Column("task", list(shares), left=True)], columns, width)


def plan_lines(plan: BatchPlan) -> Iterator[str]:
    """Yield the planned run in a few lines."""
    about = "about " if plan.last_window_share < 1 else ""
    read = plan.read
    yield (
        f"run: {counted(plan.n_steps, 'step')} of {counted(plan.batch_size, 'row')}, "
        f"{plan.steps_per_epoch:,.1f} steps per epoch, {about}{counted(read.examples, 'example')}, "
        f"{read.tokens + read.encoder_tokens:,} tokens, {read.trained_tokens:,} trained"
    )
    yield f"packing: fill {plan.fill:.2%} of {' + '.join(map(str, plan.capacities))} positions"
