"""Sections of a report about answers: scores with intervals, and previews through time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.evaluation.intervals import interval_of_scores
from ift_jax.evaluation.metric_values import is_number
from ift_jax.report.page import Markup, element, folded, joined, plots, table
from ift_jax.report.plots import Series, bar_plot, line_plot
from ift_jax.report.run_files import Record, RunFiles

_MOST_BARS = 40
_MOST_STEPS = 6  # Columns; of more steps the first, the last and some between are shown.
_SETS = {"eval": "Unseen examples of the trained tasks", "heldout": "Tasks that are never trained"}
_NOT_FOLLOWED = ("examples", "baseline")  # The same at every step.


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
        for title, part in run.scores.items():
            head = title if len(runs) == 1 else f"{run.name}: {title}"
            parts.append(folded(head, _score_table(run, part), is_open=True))
    return joined(parts) if parts else None


def _bars(runs: Sequence[RunFiles]) -> str:
    """Return exact match by task and run, with intervals; "" without answers."""
    of_runs = [run.answers.scores["exact_match"] for run in runs if run.answers]
    tasks = list(dict.fromkeys(task for of_run in of_runs for task in of_run))[:_MOST_BARS]
    if not tasks:
        return ""
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
    return bar_plot("Exact match", tasks, series, x_label="share of right answers")


def _score_table(run: RunFiles, part: Mapping[str, Any]) -> Markup:
    """Return a row for each task with all of its metrics, and their means."""
    rows = [*sorted(part["tasks"].items()), ("mean over tasks", part["overall"])]
    metrics = list(
        dict.fromkeys(
            name
            for _, of_task in rows
            for name, value in of_task.items()
            if is_number(value) and name != "examples"
        )
    )
    intervals = _intervals(run)
    heads = ["task", "examples", *metrics, "95% interval of exact match"]
    return table(
        heads,
        (
            [
                name,
                of_task["examples"],
                *(of_task.get(metric) for metric in metrics),
                intervals.get(name, ""),
            ]
            for name, of_task in rows
        ),
    )


def _intervals(run: RunFiles) -> dict[str, str]:
    if run.answers is None:
        return {}
    texts = {}
    for task, values in run.answers.scores["exact_match"].items():
        if len(values) > 1:
            _, low, high = interval_of_scores(list(values.values()))
            texts[task] = f"{low:.3f} to {high:.3f}"
    return texts


def progress(run: RunFiles) -> Markup | None:
    """Return the scores of a fixed set of examples while the run trains, each mixture apart."""
    parts: list[object] = []
    for which, title in _SETS.items():
        records = [record for record in run.evaluations if record["which"] == which]
        if not records:
            continue
        steps = [record["step"] for record in records]
        metrics = [
            name
            for name, value in records[-1]["overall"].items()
            if is_number(value) and name not in _NOT_FOLLOWED
        ]
        series = [
            Series(name, steps, [record["overall"].get(name) for record in records])
            for name in metrics
        ]
        drawn = line_plot(f"{title}: means over tasks", series, x_label="step")
        parts.append(plots([drawn]))
        shown = _some(steps)
        heads = ["task", "metric", *(f"step {step:,}" for step in shown)]
        chosen = [record for record in records if record["step"] in shown]
        summary = f"{title}: every task, with 95% intervals"
        parts.append(folded(summary, table(heads, _progress_rows(chosen)), is_open=True))
    return joined(parts) if parts else None


def _progress_rows(records: Sequence[Record]) -> Iterator[list[object]]:
    """Yield a row for each task and metric, with a cell for each record."""
    for task in [*sorted(records[-1]["tasks"]), "overall"]:
        of_task = [
            record["overall"] if task == "overall" else record["tasks"].get(task, {})
            for record in records
        ]
        for metric, value in of_task[-1].items():
            if is_number(value) and metric not in _NOT_FOLLOWED:
                cells = [
                    _with_interval(scores.get(metric), record["intervals"].get(task, {}), metric)
                    for scores, record in zip(of_task, records, strict=True)
                ]
                yield ["mean over tasks" if task == "overall" else task, metric, *cells]


def _with_interval(value: Any, intervals: Mapping[str, Any], metric: str) -> str:
    if not is_number(value):
        return ""
    if metric not in intervals:
        return f"{value:.3f}"
    return f"{value:.3f} ({intervals[metric]['low']:.3f} to {intervals[metric]['high']:.3f})"


def _some(steps: Sequence[int]) -> list[int]:
    """Return at most `_MOST_STEPS` of some steps: the first, the last, and some between."""
    if len(steps) <= _MOST_STEPS:
        return list(steps)
    places = np.linspace(0, len(steps) - 1, _MOST_STEPS).round().astype(int)
    return [steps[place] for place in places]


def previews(run: RunFiles) -> Markup | None:
    """Return the answers to the fixed prompts, a column for each of some steps."""
    steps = sorted({record["step"] for record in run.samples})
    if not steps:
        return None
    steps = _some(steps)
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
