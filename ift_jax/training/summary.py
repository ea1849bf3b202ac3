"""What a run prints last: where its time went, what training changed, what is next, its files."""

import datetime
import os
import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

from ift_jax.evaluation.score_table import title
from ift_jax.io.json_reader import parse_json
from ift_jax.io.paths import displayed
from ift_jax.report.run_files import REPORT_FILE
from ift_jax.training import goodput
from ift_jax.training.best_metric import OVERALL
from ift_jax.training.console import NOT_SHOWN, SETS

FILES = {
    "config.yaml": "the config, for --config",
    "config.json": "the same with every field",
    "run.json": "what the run reads, by content, and whether it is complete",
    "reference.json": "which model is the reference of the pairs",
    "tokenizer": "the tokenizer",
    "checkpoints": "the state, newest last",
    "checkpoints.json": "eval loss and train.best_metric of each saved state",
    "metrics.jsonl": "losses and speed of steps, eval losses, scores, stop rates",
    "evaluations.jsonl": "scores while the run trains, with intervals",
    "tensorboard": "the same as event files, and profiles",
    goodput.FILE: "seconds in steps, saving, evaluating, ...",
    "samples.jsonl": "completions of fixed prompts",
    "evaluation.json": "scores on unseen examples",
    "answers.jsonl": "every scored answer",
}
_TASKS = 8  # Where there are more, only the means over tasks are shown.
_SAMPLES = 2  # Prompts whose answers before and after are shown.
_CHARACTERS = 300  # So much of a prompt or an answer is shown.
_LEAST_SHARE = 0.005  # What would be shown as 0% of the time is left out.


def summary_lines(folder: str, width: int) -> Iterator[str]:
    """Yield lines on where the time went, and what training changed.

    Args:
        folder: The local folder of the run's files.
        width: The number of columns to write for.
    """
    yield from _time_lines(folder, width)
    metrics = _read_lines(os.path.join(folder, "metrics.jsonl"))
    changes = [*_loss_lines(metrics), *_score_lines(metrics, width), *_sample_lines(folder, width)]
    if changes:
        yield "what changed:"
        yield from changes


def next_lines(workdir: str) -> Iterator[str]:
    """Yield the commands that come next.

    Args:
        workdir: The workdir, absolute.
    """
    shown = shlex.quote(displayed(workdir))
    yield "what next:"
    yield f"  ift chat --workdir {shown}"
    yield f"  ift eval --workdir {shown}"
    yield f"  ift export --workdir {shown} --output DIR"


def file_lines(folder: str, workdir: str) -> Iterator[str]:
    """Yield the lines that name the files of a workdir, say what they hold, and where its page is.

    Args:
        folder: The local folder of the run's files.
        workdir: The workdir, absolute.
    """
    yield f"files in {displayed(workdir)}:"
    width = max(map(len, FILES))
    for name, content in FILES.items():
        # The checkpoints of a workdir in a bucket have no local copy.
        if name == "checkpoints" or os.path.exists(os.path.join(folder, name)):
            yield f"  {name:<{width}}  {content}"
    if os.path.exists(os.path.join(folder, REPORT_FILE)):
        yield f"report: {displayed(os.path.join(workdir, REPORT_FILE))}"


def _time_lines(folder: str, width: int) -> Iterator[str]:
    """Yield a line on where the time of the run went, restarts included, the most first."""
    lines = _read_lines(os.path.join(folder, goodput.FILE))
    if not lines or not lines[-1]["seconds"]:
        return
    seconds = lines[-1]["seconds"]
    total = datetime.timedelta(seconds=round(sum(seconds.values())))
    shares = sorted(goodput.shares_of(seconds).items(), key=lambda item: -item[1])
    shown = [f"{kind} {share:.0%}" for kind, share in shares if share >= _LEAST_SHARE]
    yield from textwrap.wrap(f"time {total}: {', '.join(shown)}", width, subsequent_indent="  ")


def _loss_lines(metrics: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each loss: its first value, its last, and the lowest held-out one."""
    trained_loss = "loss" if any("preference" in record for record in metrics) else "nll"
    for name, of_what in (
        ("eval_loss", "held-out loss"),
        ("heldout_loss", "loss on tasks that are never trained"),
        (trained_loss, "training loss"),
    ):
        values = [(record[name], record["step"]) for record in metrics if _is_number(record, name)]
        if len(values) < 2:
            continue
        (first, first_step), (last, last_step) = values[0], values[-1]
        line = f"  {of_what}: {first:.3f} at step {first_step}, {last:.3f} at step {last_step}"
        lowest, lowest_step = min(values)
        if name != trained_loss and lowest_step != last_step:
            line += f"; lowest {lowest:.3f} at step {lowest_step}"
        yield line
    # At step 0 the model is the reference: all pairs are ties, won and lost by rounding alone.
    pairs = [
        f"{record['eval_preference']['accuracy']:.0%} at step {record['step']}"
        for record in metrics
        if "eval_preference" in record and record["step"]
    ]
    if pairs:
        shown = dict.fromkeys((pairs[0], pairs[-1]))
        yield f"  held-out pairs won by the chosen answer: {', '.join(shown)}"
    rates = [record["preview_stop_rate"] for record in metrics if "preview_stop_rate" in record]
    if len(rates) > 1:
        yield f"  sampled answers that end by themselves: {rates[0]:.0%}, then {rates[-1]:.0%}"


def _score_lines(metrics: list[dict[str, Any]], width: int) -> Iterator[str]:
    """Yield lines for the metrics of answers: each task's before and after."""
    for which, of_what in SETS.items():
        records = [(record[which], record["step"]) for record in metrics if which in record]
        if len(records) < 2:
            continue
        (first, first_step), (last, last_step) = records[0], records[-1]
        tasks = [task for task in last if task != OVERALL]
        yield f"  answers to {of_what}, step {first_step} -> step {last_step}:"
        if len(tasks) > 1:
            changes = _changes(first.get(OVERALL, {}), last[OVERALL])
            yield from _listed(f"mean over {len(tasks)} tasks:", changes, width)
        for task in tasks if len(tasks) <= _TASKS else []:
            yield from _listed(f"{task}:", _changes(first.get(task, {}), last[task]), width)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what became of each metric that is a number before and after."""
    return [
        f"{title(metric)} {before[metric]:.3f} -> {after[metric]:.3f}"
        for metric in after
        if metric not in NOT_SHOWN and _is_number(before, metric) and _is_number(after, metric)
    ]


def _listed(head: str, parts: list[str], width: int) -> list[str]:
    text = f"{head} {', '.join(parts) or 'nothing scored'}"
    return textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="      ")


def _is_number(record: dict[str, Any], name: str) -> bool:
    return isinstance(record.get(name), float)


def _sample_lines(folder: str, width: int) -> Iterator[str]:
    """Yield the first and the last answer to some of the fixed prompts."""
    samples = _read_lines(os.path.join(folder, "samples.jsonl"))
    if not samples or samples[0]["step"] == samples[-1]["step"]:
        return
    first = [sample for sample in samples if sample["step"] == samples[0]["step"]]
    last = [sample for sample in samples if sample["step"] == samples[-1]["step"]]
    for before, after in list(zip(first, last, strict=False))[:_SAMPLES]:
        yield from _wrapped("  prompt", before["prompt"][-_CHARACTERS:], width)
        yield from _wrapped("  before", before["completion"][:_CHARACTERS], width)
        yield from _wrapped("  after ", after["completion"][:_CHARACTERS], width)


def _wrapped(title: str, text: str, width: int) -> list[str]:
    """Return a text in the columns that there are, with its line breaks visible."""
    return textwrap.wrap(
        f"{title}  {text!r}",
        width,
        subsequent_indent=" " * (len(title) + 2),
        break_on_hyphens=False,
    )


def _read_lines(path: str) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines; none if there is no such file."""
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        return [parse_json(line, path) for line in file]
