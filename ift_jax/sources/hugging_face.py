"""Data sets of the Hugging Face hub: files on this machine first, else the package `datasets`."""

import glob
import importlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ift_jax.config.data_items import ENDINGS
from ift_jax.errors import UserError
from ift_jax.sources.dataset_rows import DatasetRows, PlacedRow

# Parquet first: the hub's own files.
_ENDINGS = sorted(ENDINGS, key=lambda ending: ending != ".parquet")


class HubRows(DatasetRows):
    """The rows of a data set and one of its configurations.

    Args:
        root: The folder of local copies, `<root>/<name>[/<subset>]/<split>.jsonl` and the like.
        name: The data set's name on the hub.
        subset: Its configuration; "" for none.
    """

    def __init__(self, root: str, name: str, subset: str = "") -> None:
        super().__init__(root, "/".join(filter(None, (name, subset))))
        self._hub_name = name
        self._subset = subset

    def fetch(self, split: str, start: int, stop: int | None) -> Iterator[PlacedRow]:
        rows = itertools.islice(enumerate(self._load(split)), start, stop)
        return (PlacedRow(f"{self.name}:{split}:{number}", row) for number, row in rows)

    def fetch_count(self, split: str) -> int:
        return len(self._load(split))

    def fetch_version(self, split: str) -> str:
        return ""

    def _load(self, split: str) -> Any:
        try:
            return _load_dataset(self._hub_name, self._subset, split)
        except _NotAvailable as error:
            raise self.missing(split, str(error)) from None


def dataset_files(
    name: str, split: str, root: str, names: Sequence[str] = (), hub: bool = True
) -> list[str]:
    """Return the files of a data set's split, for `row_files.read_rows`.

    Args:
        name: "owner/name" on the hub. Local files are <split>.<ending>, <split>-*.<ending> or
            data/<split>-*.<ending> in <root>/owner/name or <root>/name, or in a root of that name.
        split: The split's name.
        root: The folder of local data ("" for none), or one file of rows.
        names: Other file names (patterns), looked for first, and in the root itself as well.
        hub: Whether `datasets` can load it (with HF_DATASETS_OFFLINE=1 from its cache alone).

    Raises:
        UserError: The split is not on this machine; says how to get it.
    """
    if os.path.isfile(root):
        return [os.path.abspath(root)]
    found = _local_files(name, split, root, names)
    if found:
        return found
    tail = os.path.basename(name)
    expected = names or (f"{split}{_ENDINGS[0]}", f"{split}{_ENDINGS[1]}")
    advice = f"put {' or '.join(expected)} into {root or '<data.root>'}/{tail}"
    if hub:
        try:
            return [file["filename"] for file in _load_dataset(name, "", split).cache_files]
        except _NotAvailable as error:
            advice += f", or {error}"
    raise UserError(f"{name}: the split {split!r} is not on this machine; {advice}")


def _local_files(name: str, split: str, root: str, names: Sequence[str]) -> list[str]:
    """Return the files of the first place that has any of the split."""
    if not root:
        return []
    tail = os.path.basename(name)
    base = os.path.abspath(root)
    folders = [os.path.join(base, name), os.path.join(base, tail)]
    named = [(folder, pattern) for folder in (*folders, base) for pattern in names]
    if os.path.basename(base) == tail:
        folders.append(base)
    by_split = [f"{stem}{ending}" for stem in (split, f"{split}-*") for ending in _ENDINGS]
    by_split += [f"data/{pattern}" for pattern in by_split]
    places = named + [(folder, pattern) for folder in folders for pattern in by_split]
    for folder, pattern in places:
        found = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
        if found:
            return found
    return []


class _NotAvailable(Exception):
    """`datasets` cannot give a data set; the text says what to do, and why."""


def _load_dataset(name: str, subset: str, split: str) -> Any:
    """Return a split that the package `datasets` has in its cache or fetches.

    Raises:
        _NotAvailable: The package is not installed, or it or its network raises anything.
    """
    try:
        package = importlib.import_module("datasets")
        return package.load_dataset(*filter(None, (name, subset)), split=split)
    except ModuleNotFoundError:
        raise _NotAvailable(
            "run launch/setup.sh hf: the package datasets fetches it by its name"
        ) from None
    except Exception as error:  # Whatever the package and its network may raise.
        reason = " ".join(str(error).split())[:200]
        raise _NotAvailable(
            f"have it fetched by its name (the package datasets says: {type(error).__name__}: "
            f"{reason})"
        ) from None
