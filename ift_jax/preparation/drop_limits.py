"""How many examples of a task may be dropped or truncated before its store is an error."""

from collections.abc import Sequence
from pathlib import Path

from ift_jax.data.store import TokenStore
from ift_jax.errors import UserError


def open_checked(
    folders: Sequence[Path], tasks: Sequence[str], max_dropped_fraction: float
) -> list[TokenStore]:
    """Open the stores of tasks.

    Raises:
        UserError: As `TokenStore.open` and `check_store`.
    """
    stores = [TokenStore.open(folder) for folder in folders]
    for store, task in zip(stores, tasks, strict=True):
        check_store(store, task, max_dropped_fraction)
    return stores


def check_store(store: TokenStore, task: str, max_dropped_fraction: float) -> None:
    """Check that enough of a task's examples are in its store, and whole.

    Raises:
        UserError: No example is left in a variant, or too many were dropped or truncated; names
            the counts by reason.
    """
    manifest = store.manifest
    counts = manifest["dropped"] | {"truncated": manifest["truncated_examples"]}
    lost = sum(counts.values())
    total = manifest["examples"] + sum(manifest["dropped"].values())
    reasons = ", ".join(f"{reason} {n}" for reason, n in counts.items() if n)
    where = f"task {task!r}, split {manifest['split']!r}"
    if not all(len(variant) for variant in store.variants):
        why = reasons or "its source is empty"
        raise UserError(f"{where}: no example is left to use ({why})")
    if lost > max_dropped_fraction * total:
        raise UserError(
            f"{where}: {lost} of {total} examples were dropped or truncated ({reasons}), more than "
            f"data.max_dropped_fraction={max_dropped_fraction} allows: raise the lengths, or the "
            "fraction"
        )
