"""Whether enough of the examples is in a store."""

from collections.abc import Sequence
from pathlib import Path

from ift_jax.data.store import TokenStore
from ift_jax.errors import UserError


def open_checked(
    folders: Sequence[Path], tasks: Sequence[str], max_dropped_fraction: float
) -> list[TokenStore]:
    """Opens the stores of tasks; a UserError as of `TokenStore.open` and `check_store`."""
    stores = [TokenStore.open(folder) for folder in folders]
    for store, task in zip(stores, tasks, strict=True):
        check_store(store, task, max_dropped_fraction)
    return stores


def check_store(store: TokenStore, task: str, max_dropped_fraction: float) -> None:
    """A UserError with the counts, if no example is left, or too many were refused or truncated."""
    counts = store.manifest
    total = counts["examples"] + sum(counts["refused"].values())
    lost = counts["refused"] | {"truncated": counts["truncated_examples"]}
    detail = ", ".join(f"{why} {n}" for why, n in lost.items() if n) or "its source is empty"
    where = f"task {task!r}, split {counts['split']!r}"
    if not all(map(len, store.variants)):
        raise UserError(f"{where}: no example is left to use ({detail})")
    if sum(lost.values()) > max_dropped_fraction * total:
        raise UserError(
            f"{where}: {sum(lost.values())} of {total} examples were refused or truncated "
            f"({detail}), more than data.max_dropped_fraction={max_dropped_fraction} allows: raise "
            "the lengths, or the share"
        )
