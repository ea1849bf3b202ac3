"""Which stores can be used: those that are whole, and hold enough of their tasks' examples."""

from collections.abc import Sequence
from pathlib import Path

from ift_jax.data.store import DamagedStore, TokenStore
from ift_jax.data.store_copies import open_stores
from ift_jax.errors import UserError
from ift_jax.io.files import Log


def open_usable(
    folders: Sequence[Path],
    tasks: Sequence[str],
    vocab_size: int,
    max_dropped_fraction: float,
    log: Log | None = None,
) -> list[TokenStore]:
    """Open the stores of tasks, local or in a bucket.

    Args:
        folders: The stores.
        tasks: The names of their tasks.
        vocab_size: The number of the tokenizer's ids.
        max_dropped_fraction: How many of a task's examples may be missing or truncated.
        log: Is told before much is read.

    Raises:
        DamagedStore: A store is missing or not what was prepared.
        UserError: As `check_store`, or a store holds what cannot be trained on.
    """
    opened, damage = open_stores(folders, vocab_size, log)
    if damage:
        raise DamagedStore("; ".join(damage.values()))
    stores = [opened[folder] for folder in folders]
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
