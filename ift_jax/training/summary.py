"""What a finished run prints last: what training changed, and what can be done next."""

import os
import textwrap
from collections.abc import Iterator
from typing import Any

from ift_jax.io.json_reader import parse_json

_SAMPLES = 2  # Prompts whose answers before and after are shown.
_CHARACTERS = 300  # So much of a prompt or an answer is shown.


def summary_lines(folder: str, workdir: str, width: int) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        folder: The local folder of the run's files.
        workdir: The workdir as the user named it, for the commands.
        width: The number of columns to write for.
    """
    metrics = _read_lines(os.path.join(folder, "metrics.jsonl"))
    changes = [*_loss_lines(metrics), *_sample_lines(folder, width)]
    if changes:
        yield "what changed:"
        yield from changes
    yield "what next:"
    yield f"  ift chat --workdir {workdir}"
    yield f"  ift eval --workdir {workdir}"
    yield f"  ift export --workdir {workdir} --output DIR"


def _loss_lines(metrics: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each loss: its first value, its last, and the lowest held-out one."""
    for name, title in (
        ("eval_loss", "held-out loss"),
        ("heldout_loss", "loss on tasks that are never trained"),
        ("nll", "training loss"),
    ):
        values = [(record[name], record["step"]) for record in metrics if _is_number(record, name)]
        if len(values) < 2:
            continue
        (first, first_step), (last, last_step) = values[0], values[-1]
        line = f"  {title}: {first:.3f} at step {first_step}, {last:.3f} at step {last_step}"
        lowest, lowest_step = min(values)
        if name != "nll" and lowest_step != last_step:
            line += f"; lowest {lowest:.3f} at step {lowest_step}"
        yield line
    rates = [record["preview_stop_rate"] for record in metrics if "preview_stop_rate" in record]
    if len(rates) > 1:
        yield f"  sampled answers that end by themselves: {rates[0]:.0%}, then {rates[-1]:.0%}"


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
