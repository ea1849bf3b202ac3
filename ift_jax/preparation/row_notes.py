"""What a store's manifest says about the rows that it was made of: what was not read or written."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_jax.data.store import TokenStore
from ift_jax.errors import counted
from ift_jax.io.files import Log
from ift_jax.text.encoded import FURTHER_EXAMPLES, REPEATED_TOKENS


def log_row_notes(
    tasks: Sequence[str], stores: Sequence[TokenStore], new: Collection[Path], log: Log
) -> None:
    """Log the notes of the stores in the folders that were made just now."""
    for task, store in zip(tasks, stores, strict=True):
        if store.path in new:
            for line in row_notes(task, store.manifest):
                log(line)


def row_notes(task: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a user should know of a task's rows, in whole lines.

    Args:
        task: The task's name.
        manifest: The manifest of its store.
    """
    unread = manifest.get("unread", {})
    shape = manifest.get("rows", "")
    if shape or unread:
        parts = [f"rows are {shape}"] if shape else []
        if unread:
            parts.append(f"{counted(len(unread), 'field')} of its rows unused{_names(unread)}")
        yield f"{task}: {'; '.join(parts)}"
    unwritten = manifest.get("unwritten", {})
    if unwritten:
        yield f"{task}: the template does not write{_names(unwritten)}"
    notes = dict(manifest.get("notes", {}))
    further, repeated = notes.pop(FURTHER_EXAMPLES, 0), notes.pop(REPEATED_TOKENS, 0)
    if notes:
        yield f"{task}: by format's policies{_names(notes)}"
    if further:
        tokens = manifest["tokens"]
        yield (
            f"{task}: {counted(further, 'further example')} of conversations whose earlier turns"
            " are written differently (such as without their thoughts):"
            f" {counted(repeated, 'token')} of {tokens:,} ({repeated / tokens:.0%}) repeat context;"
            f" one example per conversation would take {tokens - repeated:,}"
        )


def _names(counts: Mapping[str, int]) -> str:
    """Return names with their numbers of records, the most frequent first."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = ", ".join(f"{name} ({count:,})" for name, count in by_count)
    return f": {names}" if names else ""
