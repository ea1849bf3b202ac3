"""Sections of a report about training: losses, tasks, mixture, speed."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ift_jax.report.page import Markup, element, folded, joined, plots, table
from ift_jax.report.plots import Series, bar_plot, line_plot
from ift_jax.report.run_files import RunFiles

_MOST_BARS = 40  # Tasks in a plot of bars; the table has all.
_MOST_LINES = 40  # Tasks; of more a plot shows the median.
_LARGEST_OPEN_TABLE = 30  # Rows; a longer table is folded.


def losses(runs: Sequence[RunFiles]) -> Markup:
    """Return the losses of all runs, and what drives them, over the steps."""
    has_pairs = any(run.points("eval_preference/accuracy")[0] for run in runs)
    drawn = (
        _over_steps(
            runs, "Held-out loss", ["eval_loss"], "" if has_pairs else "nats per trained token"
        ),
        _over_steps(runs, "Loss on tasks that are never trained", ["heldout_loss"]),
        *_preferences(runs),
        _over_steps(
            runs,
            "Plain loss of the chosen answers" if has_pairs else "Training loss",
            ["nll"],
            "nats per trained token",
        ),
        _over_steps(runs, "Accuracy of the next token", ["accuracy"]),
        _over_steps(runs, "Gradient norm", ["grad_norm"], log_y=True),
        _over_steps(runs, "Learning rate", ["learning_rate"]),
    )
    return plots(filter(None, drawn))


def _preferences(runs: Sequence[RunFiles]) -> Iterator[str]:
    """Yield plots of what runs on pairs measure; "" for one that no run has."""
    title = "Held-out pairs with the greater reward for the chosen answer"
    yield _over_steps(runs, title, ["eval_preference/accuracy"])
    for of_what, prefix in (("Held-out", "eval_preference"), ("Trained", "preference")):
        for quantity, name in (("rewards", "reward"), ("log-probabilities", "log_prob")):
            names = [f"{prefix}/{side}_{name}" for side in ("chosen", "rejected")]
            yield _over_steps(runs, f"{of_what} pairs: mean {quantity}", names)


def _over_steps(
    runs: Sequence[RunFiles],
    title: str,
    names: Sequence[str],
    y_label: str = "",
    *,
    log_y: bool = False,
) -> str:
    """Return a plot of numbers of the metrics; "" if no run has them."""
    series = []
    for run in runs:
        for name in names:
            steps, values = run.points(name)
            if any(value is not None for value in values):
                label = run.name if len(names) == 1 else f"{run.name}: {name.partition('/')[2]}"
                series.append(Series(label, steps, values))
    if not series:
        return ""
    return line_plot(title, series, x_label="step", y_label=y_label, log_y=log_y)


def task_losses(run: RunFiles) -> Markup | None:
    """Return the losses of each task of one run: a plot, and a table with the first and last."""
    parts: list[object] = []
    for name, title in (
        ("eval_task_loss", "Held-out loss of each task"),
        ("heldout_task_loss", "Loss of each task that is never trained"),
    ):
        tasks = run.tasks_of(name)
        if len(tasks) < 2:
            continue
        series = [Series(task, *run.points(f"{name}/{task}")) for task in tasks]
        rows = sorted(_first_and_last(series), key=lambda row: row[3])
        heads = ["task", "first", "last", "change"]
        lines = series if len(series) <= _MOST_LINES else [_median(series)]
        drawn = line_plot(title, lines, x_label="step", y_label="nats per trained token")
        parts.append(plots([drawn]))
        summary = f"{title}: all {len(rows):,} tasks, the largest gain first"
        parts.append(folded(summary, table(heads, rows), is_open=len(rows) <= _LARGEST_OPEN_TABLE))
    return joined(parts) if parts else None


def _median(lines: Sequence[Series]) -> Series:
    """Return the median of many tasks at each step, with the middle half of them as its band."""
    values: dict[float, list[float]] = {}
    for line in lines:
        for x, y in zip(line.xs, line.ys, strict=True):
            if y is not None and math.isfinite(y):
                values.setdefault(x, []).append(y)
    steps = sorted(values)
    quartiles = [np.percentile(values[step], (25, 50, 75)).tolist() for step in steps]
    medians = [median for _, median, _ in quartiles]
    band = [(median - low, high - median) for low, median, high in quartiles]
    return Series(f"median of {len(lines):,} tasks, and their middle half", steps, medians, band)


def _first_and_last(series: Sequence[Series]) -> Iterator[tuple[str, float, float, float]]:
    for line in series:
        finite = [y for y in line.ys if y is not None and math.isfinite(y)]
        if finite:
            yield line.name, finite[0], finite[-1], finite[-1] - finite[0]


def mixture(run: RunFiles) -> Markup | None:
    """Return the requested share of each task beside its share of the trained tokens so far."""
    tasks = run.record.inputs.get("mixtures", {}).get("train", {})
    tokens = {task: 0.0 for task in tasks}
    for record in run.metrics:
        for task, n in (record.get("task_tokens") or {}).items():
            tokens[task] = tokens.get(task, 0.0) + n
    total_rate = sum(fields["rate"] for fields in tasks.values())
    total_tokens = sum(tokens.values())
    if len(tokens) < 2 or not total_tokens or not total_rate:
        return None
    rows = [
        (
            task,
            tasks[task]["examples"] if task in tasks else None,
            100 * tasks[task]["rate"] / total_rate if task in tasks else None,
            100 * n / total_tokens,
            round(n),
        )
        for task, n in sorted(tokens.items(), key=lambda item: -item[1])
    ]
    most = rows[:_MOST_BARS]
    places = list(range(len(most)))
    series = [
        Series("of examples, as the rates ask", places, [row[2] for row in most]),
        Series("of trained tokens so far", places, [row[3] for row in most]),
    ]
    heads = ["task", "examples", "% asked", "% of trained tokens", "trained tokens"]
    drawn = bar_plot("Mixture", [row[0] for row in most], series, x_label="percent")
    note = "The rates ask for shares of examples; a task with long answers has more of the tokens."
    return joined(
        [
            element("p", note, class_="note"),
            plots([drawn]),
            folded(f"All {len(rows):,} tasks", table(heads, rows)),
        ]
    )


def speed(runs: Sequence[RunFiles]) -> Markup:
    """Return how fast the runs were, how full their rows, and where their time went."""
    drawn = [
        _over_steps(runs, "Trained tokens per second", ["time/trained_tokens_per_second"]),
        _over_steps(runs, "Model FLOP utilization", ["time/mfu"]),
        _over_steps(runs, "Goodput: share of all time in steps", ["time/goodput/steps"]),
        _over_steps(runs, "Share of each row that is filled", ["fill"]),
        _over_steps(runs, "Share of time the device waits for data", ["time/data_wait_share"]),
    ]
    return joined([plots(filter(None, drawn)), *filter(None, [_goodput(runs)])])


def _goodput(runs: Sequence[RunFiles]) -> Markup | None:
    """Return the share of each run's time that each kind of work took, restarts included."""
    of_runs = [run.goodput for run in runs]
    kinds = list(dict.fromkeys(kind for shares in of_runs for kind in shares))
    if not kinds:
        return None
    rows = [(kind, *(100 * shares.get(kind, 0.0) for shares in of_runs)) for kind in kinds]
    heads = ["% of the time so far", *(run.name if len(runs) > 1 else "" for run in runs)]
    return table(heads, rows)
