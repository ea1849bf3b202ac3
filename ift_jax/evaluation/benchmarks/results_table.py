"""The results of benchmarks as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.errors import counted
from ift_jax.io.text_tables import Column, output_width, table_lines, wrapped

_HEADS = ("benchmark", "problems", "shots", "metric", "value", "95% interval")
_TEXTS = ("benchmark", "metric", "95% interval")


def results_table(title: str, results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines: one a metric, with its 95% interval, and one a group.

    Args:
        title: The first line.
        results: What `run_benchmark` returns, by benchmark; complete ones.
    """
    width = output_width()
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for name, result in results.items():
        for metric, found in result["metrics"].items():
            rows.append(_row(name, result["shots"], metric, found))
        for group, metrics in result["groups"].items():
            for metric, found in metrics.items():
                rows.append(_row(f"  {group}", result["shots"], metric, found))
        for note in _notes(name, result):
            notes += wrapped(note, width, indent=2)
    if not rows:
        return [title, *notes]
    columns = [
        Column(head, cells, left=head in _TEXTS)
        for head, cells in zip(_HEADS, zip(*rows, strict=True), strict=True)
    ]
    return [title, *table_lines(columns[:1], columns[1:], width), *notes]


def _row(name: str, shots: int, metric: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    is_known = found["low"] is not None  # One problem has no interval.
    interval = f"{found['low']:.3f} to {found['high']:.3f}" if is_known else "-"
    return name, str(found["n"]), str(shots), metric, f"{found['value']:.3f}", interval


def _notes(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the numbers do not say: the part that was run, what did not fit, the time."""
    left = result["published_here"] - result["examples"]
    parts = [counted(result["examples"], "problem")]
    if left:
        parts[0] += f" of {result['published_here']:,}"
    parts.append(f"{result['seconds']:.1f} s for {counted(result['answered_now'], 'answer')}")
    if "new_tokens_now" in result:
        parts.append(counted(result["new_tokens_now"], "new token"))
        if result["unfinished"]:
            parts.append(f"{counted(result['unfinished'], 'answer')} reached the most tokens")
    if result["shortened"]:
        parts.append(f"{counted(result['shortened'], 'prompt')} with fewer solved examples")
    if result["too_long"]:
        parts.append(f"not fitting, counted as wrong: {counted(result['too_long'], 'prompt')}")
    yield f"{name}: {'; '.join(parts)}"
    for path in result["outputs"]:
        yield f"{name}: for the judge: {path}"
