"""Rows of a Hugging Face dataset: files on this machine first, else the `datasets` package."""

import glob
import gzip
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ift_jax.errors import UserError
from ift_jax.sources.jsonl import parse_line

_ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".json")  # .json: one array of objects.


def dataset_files(
    name: str, split: str, root: str, names: Sequence[str] = (), hub: bool = True
) -> list[str]:
    """Returns the files of a dataset's split, for `read_rows`; a UserError says how to get them.

    Args:
      name: "owner/name" on the hub. Local copies are <split>.<ending>, <split>-*.<ending> or
        data/<split>-*.<ending> in <root>/owner/name or <root>/name, or in a root of that name.
      split: the split's name.
      root: where local data lies ("": nowhere), or one file of rows.
      names: other file names (patterns), looked for first, and in the root itself as well.
      hub: `datasets` can load it (under HF_DATASETS_OFFLINE=1 from its cache alone).
    """
    if os.path.isfile(root):
        return [os.path.abspath(root)]
    tail, base = os.path.basename(name), os.path.abspath(root)
    folders = [os.path.join(base, name), os.path.join(base, tail)]
    stems = [f"{stem}{ending}" for stem in (split, f"{split}-*") for ending in _ENDINGS]
    places = [(folder, n) for folder in [*folders, base] for n in names]
    folders += [base] if os.path.basename(base) == tail else []
    places += [(f, n) for f in folders for n in stems + [f"data/{stem}" for stem in stems]]
    for folder, pattern in places if root else ():
        if found := sorted(glob.glob(os.path.join(glob.escape(folder), pattern))):
            return found
    advice = f"put {' or '.join(names or stems[:2])} into {root or '<data.root>'}/{tail}"
    if hub:
        return [file["filename"] for file in load_dataset(name, "", split, advice).cache_files]
    raise UserError(f"{name}: the split {split!r} is not on this machine; {advice}")


def load_dataset(name: str, subset: str, split: str, advice: str) -> Any:
    """Returns what the package `datasets` has or fetches; a UserError gives the advice, and why."""
    try:
        package = importlib.import_module("datasets")
        return package.load_dataset(*filter(None, (name, subset)), split=split)
    except ModuleNotFoundError:
        advice += ", or run launch/setup.sh hf: the package datasets fetches it by its name"
    except Exception as error:  # Whatever the package and its network may raise.
        reason = " ".join(str(error).split())[:200]
        advice += f" (the package datasets says: {type(error).__name__}: {reason})"
    whole = "/".join(filter(None, (name, subset)))
    raise UserError(f"{whole}: the split {split!r} is not on this machine; {advice}")


def read_rows(path: str) -> Iterator[tuple[str, Any, int]]:
    """Yields each row's place, and the two values of which `row_of` makes a dict."""
    try:
        if path.endswith((".parquet", ".arrow")):
            arrow, first = path.endswith(".arrow"), 0
            file = pa.ipc.open_stream(pa.memory_map(path)) if arrow else pq.ParquetFile(path)
            for batch in file if arrow else file.iter_batches(1024):
                yield from ((f"{path}: row {first + i}", batch, i) for i in range(batch.num_rows))
                first += batch.num_rows
        elif path.endswith(".json"):
            with open(path, encoding="utf-8-sig") as text:
                yield from ((f"{path}: row {i}", row, 0) for i, row in enumerate(json.load(text)))
        else:
            with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as lines:
                rows = ((path, n, line) for n, line in enumerate(lines, 1) if line.strip())
                yield from ((f"{path}:{row[1]}", row, 0) for row in rows)
    except (pa.ArrowInvalid, ValueError, EOFError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def row_of(held: Any, i: int) -> Mapping[str, Any]:
    """Returns a row of `read_rows` as a dict."""
    row = parse_line(*held) if isinstance(held, tuple) else held
    return row.slice(i, 1).to_pylist()[0] if isinstance(row, pa.RecordBatch) else row
