"""What a store's manifest says about the rows that it was made of: what was not read or written."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_jax.data.store import TokenStore
from ift_jax.errors import counted, listed
from ift_jax.io.files import Log
from ift_jax.io.text_tables import MOST_LISTED
from ift_jax.text.encoded import FURTHER_EXAMPLES, REPEATED_TOKENS

_MOST_NAMES = 8  # Names in a line about many tasks.


def log_row_notes(
    tasks: Sequence[str], stores: Sequence[TokenStore], new: Collection[Path], log: Log
) -> None:
    """Log the notes of the stores in the folders that were made just now; sums if they are many."""
    made = {
        task: store.manifest for task, store in zip(tasks, stores, strict=True) if store.path in new
    }
    if len(made) > MOST_LISTED:
        lines = row_notes_of_many(list(made.values()))
    else:
        lines = (line for task, manifest in made.items() for line in row_notes(task, manifest))
    for line in lines:
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


def row_notes_of_many(manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what `row_notes` says of each task as sums over many tasks, in a few lines.

    Args:
        manifests: The manifests of their stores.
    """
    shapes = Counter(shape for manifest in manifests if (shape := manifest.get("rows", "")))
    for shape, n in shapes.most_common():
        yield f"{counted(n, 'task')}: rows are {shape}"
    for key, what in (
        ("unread", "fields of rows unused, with their numbers of records"),
        ("unwritten", "the template does not write"),
        ("notes", "by format's policies"),
    ):
        having = [manifest[key] for manifest in manifests if manifest.get(key)]
        if having:
            yield f"{counted(len(having), 'task')}: {what}{_names(_sums(having), _MOST_NAMES)}"


def _sums(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for each in counts:
        total.update(each)
    return total


def _names(counts: Mapping[str, int], most: int | None = None) -> str:
    """Return names with their numbers of records, the most frequent first, and at most `most`."""
    by_count = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = [f"{name} ({count:,})" for name, count in by_count]
    return f": {listed(names, most or len(names))}" if names else ""
