"""Sections of a report about answers: scores with intervals, and previews through time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.evaluation.intervals import interval_of_scores
from ift_jax.evaluation.metric_values import number_names
from ift_jax.evaluation.score_table import title
from ift_jax.report.page import Markup, element, folded, joined, plots, table
from ift_jax.report.plots import Series, bar_plot
from ift_jax.report.progress_sections import OVERALL, some_steps, with_interval
from ift_jax.report.run_files import Record, RunFiles

_MOST_BARS = 40
_NO_COLUMN = ("examples", "tasks")  # The number of examples has a column of its own.


def scores(runs: Sequence[RunFiles]) -> Markup | None:
    """Return the final scores of all runs: a plot of exact match, and a table of every metric."""
    parts: list[object] = []
    drawn = _bars([run for run in runs if run.answers is not None])
    if drawn:
        parts.append(plots([drawn]))
        note = (
            "Lines at the ends of bars are 95% intervals of the mean (Wilson's). `ift compare` "
            "tests the difference between two runs."
        )
        parts.append(element("p", note, class_="note"))
    for run in runs:
        for of_what, part in run.scores.items():
            head = of_what if len(runs) == 1 else f"{run.name}: {of_what}"
            parts.append(folded(head, _score_table(run, part), is_open=True))
    return joined(parts) if parts else None


def _bars(runs: Sequence[RunFiles]) -> str:
    """Return exact match by task and run, with intervals; "" without answers."""
    of_runs = [run.answers.scores["exact_match"] for run in runs if run.answers]
    all_tasks = list(dict.fromkeys(task for of_run in of_runs for task in of_run))
    tasks = all_tasks[:_MOST_BARS]
    if not tasks:
        return ""
    left_out = f" of the first {len(tasks)} tasks" if len(all_tasks) > len(tasks) else ""
    series = []
    for run, of_run in zip(runs, of_runs, strict=True):
        means: list[float | None] = []
        errors = []
        for task in tasks:
            values = list(of_run.get(task, {}).values())
            if len(values) < 2:
                means.append(values[0] if values else None)
                errors.append((0.0, 0.0))
                continue
            mean = float(np.mean(values))
            interval = interval_of_scores(values)
            means.append(mean)
            errors.append((max(mean - interval.low, 0.0), max(interval.high - mean, 0.0)))
        series.append(Series(run.name, list(range(len(tasks))), means, errors))
    return bar_plot(f"Exact match{left_out}", tasks, series, x_label="share of right answers")


def _score_table(run: RunFiles, part: Mapping[str, Any]) -> Markup:
    """Return a row for each task with all of its metrics, their intervals, and their means."""
    rows = [*sorted(part["tasks"].items()), (OVERALL, part["overall"])]
    metrics = number_names((of_task for _, of_task in rows), _NO_COLUMN)
    intervals = part.get("intervals") or _intervals(run)

    def cells(task: str, of_task: Mapping[str, Any]) -> Iterator[object]:
        yield "mean over tasks" if task == OVERALL else task
        yield of_task["examples"]
        for metric in metrics:
            yield with_interval(of_task.get(metric), intervals.get(task, {}), metric)

    return table(["task", "examples", *map(title, metrics)], (list(cells(*row)) for row in rows))


def _intervals(run: RunFiles) -> dict[str, Any]:
    """Return the intervals of a run that wrote none, from its answers."""
    of_tasks = run.answers.scores["exact_match"] if run.answers else {}
    return {
        task: {"exact_match": interval_of_scores(list(values.values()))._asdict()}
        for task, values in of_tasks.items()
        if len(values) > 1
    }


def benchmarks(runs: Sequence[RunFiles]) -> Markup | None:
    """Return what `ift eval --benchmarks` found, with intervals."""
    rows = []
    for run in runs:
        for name, result in run.benchmarks.get("benchmarks", {}).items():
            parts = [(name, result["metrics"])]
            parts += [(f"{name}: {group}", found) for group, found in result["groups"].items()]
            for part, metrics in parts:
                for metric, found in metrics.items():
                    value = with_interval(found["value"], _interval_of(found, metric), metric)
                    row = [part, run.benchmarks["step"], result["shots"], found["n"], metric, value]
                    rows.append(row if len(runs) == 1 else [run.name, *row])
    if not rows:
        return None
    heads = ["benchmark", "step", "shots", "problems", "metric", "value"]
    return table(heads if len(runs) == 1 else ["run", *heads], rows)


def _interval_of(found: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return the interval of a benchmark's metric; one problem has none."""
    return {} if found["low"] is None else {metric: found}


def previews(run: RunFiles) -> Markup | None:
    """Return the answers to the fixed prompts, a column for each of some steps."""
    steps = sorted({record["step"] for record in run.samples})
    if not steps:
        return None
    steps = some_steps(steps)
    prompts: dict[tuple[str, str], dict[int, Record]] = {}
    for record in run.samples:
        prompts.setdefault((record["task"], record["prompt"]), {})[record["step"]] = record
    return joined(
        _preview(task, prompt, of_steps, steps) for (task, prompt), of_steps in prompts.items()
    )


def _preview(
    task: str, prompt: str, of_steps: Mapping[int, Record], steps: Sequence[int]
) -> Markup:
    """Return one prompt, what was expected, and the answer at each step."""

    def rows() -> Iterator[tuple[str, object]]:
        for step in steps:
            if step in of_steps:
                record = of_steps[step]
                ended = "" if record["stopped"] else " (cut off)"
                yield f"step {step:,}{ended}", element("code", record["completion"])
        references = next(iter(of_steps.values())).get("references") or []
        if references:
            yield "expected", element("code", " | ".join(references))

    return folded(
        task,
        joined([element("pre", prompt), table(["", "answer"], rows())]),
        is_open=True,
    )
