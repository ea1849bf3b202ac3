"""Which stores can be used: those that are whole, and hold enough of their tasks' examples."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_jax.data.store import DamagedStore, TokenStore
from ift_jax.data.store_copies import open_stores
from ift_jax.errors import UserError
from ift_jax.io.files import Log
from ift_jax.text.dropped import UNWRITTEN
from ift_jax.text.filters import PREFIX as FILTERED
from ift_jax.text.records import (
    ASSISTANT_FIRST,
    SAME_ROLE_TWICE,
    SYSTEM_IN_THE_MIDDLE,
    WRONG_ORDER,
)

_LENGTH_STEP = 64  # Tokens: lengths above a limit are counted in steps of this.
# What takes rows that are dropped for a reason.
_CURES = {
    ASSISTANT_FIRST: "data.drop_leading_assistant=True",
    SAME_ROLE_TWICE: "data.merge_same_role=True",
    SYSTEM_IN_THE_MIDDLE: "data.any_turn_order=True",
    WRONG_ORDER: "data.any_turn_order=True",
    UNWRITTEN.reason: "format.unwritten='leave-out'",
}
_KEPT = 0.99  # The share of a task's examples that a suggested length keeps.


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
            the counts by reason, and the length that would keep nearly all.
    """
    manifest = store.manifest
    counts = manifest["dropped"] | {"truncated": manifest["truncated_examples"]}
    # What a filter drops was asked for.
    lost = sum(n for reason, n in counts.items() if not reason.startswith(FILTERED))
    total = manifest["examples"] + sum(manifest["dropped"].values())
    reasons = ", ".join(f"{reason} {n}" for reason, n in counts.items() if n)
    where = f"task {task!r}, split {manifest['split']!r}"
    cure = _longer(manifest, total) + _taking(manifest)
    if not all(len(variant) for variant in store.variants):
        raise UserError(
            f"{where}: no example is left to use ({_why_empty(manifest, reasons)}){cure}"
        )
    if lost > max_dropped_fraction * total:
        cure = f"{cure}, or" if cure else ":"
        raise UserError(
            f"{where}: {lost:,} of {total:,} examples were dropped or truncated ({reasons}), more "
            f"than data.max_dropped_fraction={max_dropped_fraction} allows{cure} raise that "
            "fraction"
        )


def _why_empty(manifest: Mapping[str, Any], reasons: str) -> str:
    if reasons:
        return reasons
    n_input = manifest["input_examples"]
    if manifest["preprocessors"] and n_input:
        return f"its preprocessors kept none of the {n_input:,} records of its source"
    if manifest["preprocessors"] and n_input is None:
        return "its source is empty, or its preprocessors kept none of its records"
    return "its source is empty"


def over_limit_key(field: str, length: int) -> str:
    """Return the key under which a manifest counts an example that exceeds a limit.

    Args:
        field: The limit, as a field of `config.data`.
        length: The tokens of the example.
    """
    return f"{field} {-(-length // _LENGTH_STEP) * _LENGTH_STEP}"


def _taking(manifest: Mapping[str, Any]) -> str:
    """Return which options would take what was dropped, as the end of a message."""
    cures = Counter[str]()
    for reason, n in manifest["dropped"].items():
        if reason in _CURES:
            cures[_CURES[reason]] += n
    return "".join(f"; {cure} would take {n:,} of them" for cure, n in cures.items())


def _longer(manifest: Mapping[str, Any], total: int) -> str:
    """Return which longer limits would keep nearly all examples, as the end of a message."""
    above: dict[str, dict[int, int]] = {}
    for key, count in manifest["over_limit"].items():
        field, length = key.split()
        above.setdefault(field, {})[int(length)] = count
    found = []
    for field, counts in above.items():
        longer = sum(counts.values())
        for length in sorted(counts):
            longer -= counts[length]
            if longer <= (1 - _KEPT) * total:
                break
        kept = f"{_KEPT:.0%}" if longer else "all"
        found.append(f"data.{field}={length} (it is {manifest[field]}) would keep {kept}")
    return f"; {' and '.join(found)} of them" if found else ""
