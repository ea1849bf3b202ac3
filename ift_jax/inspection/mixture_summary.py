"""A mixture of very many tasks on one screen: totals, quantiles over tasks, and the extremes."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.errors import counted
from ift_jax.inspection.task_counts import TaskCounts, TaskShares
from ift_jax.io.text_tables import Column, table_lines, wrapped
from ift_jax.preparation.row_notes import row_notes_of_many

_QUANTILES = {"least": 0, "p25": 25, "median": 50, "p75": 75, "most": 100}
_EXTREMES = 3  # Tasks that are named for each extreme.
_CLUSTERS = 10
_EXAMPLES_OF = 3  # Tasks of which an example is shown.


def summary_lines(
    counts: Sequence[TaskCounts],
    shares: Mapping[str, TaskShares],
    manifests: Sequence[Mapping[str, Any]],
    width: int,
) -> Iterator[str]:
    """Yield the summary, in lines of at most `width` columns.

    Args:
        counts: What the stores hold of each task.
        shares: What the planned run sees of each task; none if no run is planned.
        manifests: The manifests of the stores.
        width: The most columns of a line.
    """
    for line in _totals(counts):
        yield from wrapped(line, width)
    yield ""
    yield from _quantiles(counts, shares, width)
    for line in row_notes_of_many(manifests):
        yield from wrapped(line, width)
    if len({each.cluster for each in counts}) > 1:
        yield ""
        yield from _clusters(counts, shares, width)
    yield ""
    yield from _extremes(counts, shares, width)
    yield from wrapped("--all lists every task, --task NAME shows one", width)


def tasks_of_examples(counts: Sequence[TaskCounts]) -> list[str]:
    """Return the tasks of which examples are shown: those with the most tokens."""
    return [each.task for each in _sorted(counts, lambda each: -each.tokens)[:_EXAMPLES_OF]]


def _sorted(counts: Sequence[TaskCounts], key: Callable[[TaskCounts], float]) -> list[TaskCounts]:
    return sorted(counts, key=lambda each: (key(each), each.task))


def _totals(counts: Sequence[TaskCounts]) -> Iterator[str]:
    """Yield the sums over all tasks."""
    tokens = sum(each.tokens for each in counts)
    trained = sum(each.trained_tokens for each in counts)
    known = [each.in_source for each in counts if each.in_source is not None]
    in_source = f"{counted(sum(known), 'example')} in their sources, " if known else ""
    if known and len(known) < len(counts):
        in_source = f"{in_source.rstrip(', ')} ({counted(len(known), 'task')} can tell), "
    yield (
        f"stores: {counted(len(counts), 'task')}, {in_source}"
        f"{counted(sum(each.examples for each in counts), 'example')} here, {tokens:,} tokens, "
        f"{trained / max(tokens, 1):.1%} trained"
    )
    lengths = np.concatenate([each.lengths for each in counts])
    encoder = np.concatenate([each.encoder_lengths for each in counts])
    for what, values in (("example", lengths), ("encoder's part", encoder)):
        if values.any():
            p50, p95, p100 = np.percentile(values, (50, 95, 100))
            yield f"tokens of an {what}: p50 {p50:,.0f}, p95 {p95:,.0f}, p100 {p100:,.0f}"
    dropped = Counter[str]()
    for each in counts:
        dropped.update(each.dropped)
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in dropped.most_common())
    yield (
        f"truncated {sum(each.truncated for each in counts):,}, control strings "
        f"{sum(each.control_strings for each in counts):,}, dropped {dropped.total():,}"
        + (f": {reasons}" if reasons else "")
    )


def _quantiles(
    counts: Sequence[TaskCounts], shares: Mapping[str, TaskShares], width: int
) -> list[str]:
    """Return how the numbers of the tasks are spread."""
    number = "{:,.0f}".format
    percent = "{:.0%}".format
    rows: list[tuple[str, list[float], Callable[[float], str]]] = [
        ("examples", [each.examples for each in counts], number),
        ("tokens", [each.tokens for each in counts], number),
        ("trained tokens", [each.trained_share for each in counts], percent),
        ("median length", [float(np.median(each.lengths)) for each in counts], number),
        ("longest example", [each.lengths.max() for each in counts], number),
        ("dropped", [each.dropped_share for each in counts], percent),
    ]
    if shares:
        of_tasks = [shares[each.task] for each in counts]
        rows += [
            ("requested share", [each.requested for each in of_tasks], "{:.3%}".format),
            ("share of trained tokens", [e.trained_tokens for e in of_tasks], "{:.3%}".format),
            ("epochs", [each.epochs for each in of_tasks], "{:.2f}".format),
        ]
    found = [np.percentile(values, list(_QUANTILES.values())) for _, values, _ in rows]
    columns = [
        Column(head, [text(values[k]) for values, (*_, text) in zip(found, rows, strict=True)])
        for k, head in enumerate(_QUANTILES)
    ]
    names = Column("of a task", [name for name, *_ in rows], left=True)
    return table_lines([names], columns, width)


def _clusters(
    counts: Sequence[TaskCounts], shares: Mapping[str, TaskShares], width: int
) -> list[str]:
    """Return the sums over the tasks of each cluster, the largest first."""
    by_name = sorted(counts, key=lambda each: each.cluster)
    grouped = itertools.groupby(by_name, lambda each: each.cluster)
    groups = [(name or "(no cluster)", list(tasks)) for name, tasks in grouped]
    groups.sort(key=lambda group: -sum(each.tokens for each in group[1]))
    if len(groups) > _CLUSTERS:
        rest = [each for _, tasks in groups[_CLUSTERS - 1 :] for each in tasks]
        others = f"{len(groups) - _CLUSTERS + 1:,} more clusters"
        groups = [*groups[: _CLUSTERS - 1], (others, rest)]
    of_groups = [tasks for _, tasks in groups]
    columns = [
        Column("tasks", [f"{len(tasks):,}" for tasks in of_groups]),
        Column("examples", [f"{sum(each.examples for each in tasks):,}" for tasks in of_groups]),
        Column("tokens", [f"{sum(each.tokens for each in tasks):,}" for tasks in of_groups]),
        Column("dropped", [f"{sum(each.n_dropped for each in tasks):,}" for tasks in of_groups]),
    ]
    if shares:
        of_run = [sum(shares[each.task].trained_tokens for each in tasks) for tasks in of_groups]
        columns.append(Column("of trained tokens", [f"{share:.2%}" for share in of_run]))
    return table_lines([Column("cluster", [name for name, _ in groups], left=True)], columns, width)


def _extremes(
    counts: Sequence[TaskCounts], shares: Mapping[str, TaskShares], width: int
) -> Iterator[str]:
    """Yield the tasks with the most and the fewest tokens, drops and epochs."""
    by_tokens = _sorted(counts, lambda each: -each.tokens)
    by_drops = _sorted(counts, lambda each: -each.dropped_share)
    parts: list[tuple[str, str, list[TaskCounts], Callable[[TaskCounts], str]]] = [
        ("the most tokens", "tokens", by_tokens[:_EXTREMES], lambda each: f"{each.tokens:,}"),
        ("the fewest tokens", "tokens", by_tokens[-_EXTREMES:], lambda each: f"{each.tokens:,}"),
    ]
    if dropping := [each for each in by_drops[:_EXTREMES] if each.n_dropped]:
        parts.append(
            ("the most drops", "dropped", dropping, lambda each: f"{each.dropped_share:.0%}")
        )
    if shares:
        by_epochs = _sorted(counts, lambda each: -shares[each.task].epochs)[:_EXTREMES]
        parts.append(
            ("the most epochs", "epochs", by_epochs, lambda each: f"{shares[each.task].epochs:.2f}")
        )
    for what, head, tasks, text in parts:
        names = Column(f"tasks with {what}", [each.task for each in tasks], left=True)
        yield from table_lines([names], [Column(head, [text(each) for each in tasks])], width)
