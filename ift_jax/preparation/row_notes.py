"""What a store's manifest says about the rows that it was made of: what was not read or written."""

from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.errors import counted


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


def _names(counts: Mapping[str, int]) -> str:
    """Return names with their numbers of records, the most frequent first."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = ", ".join(f"{name} ({count:,})" for name, count in by_count)
    return f": {names}" if names else ""
