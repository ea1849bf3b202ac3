"""Whether stores hold what was prepared: the bytes of their parts, their ids and their weights.

Every byte is read once per machine and content. What was found good is noted in a file of this
machine, by size, times and inode of the store's files; later runs only compare those.
"""

import concurrent.futures
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ift_jax.data.store import MANIFEST, TokenStore, part_path
from ift_jax.errors import UserError, counted
from ift_jax.io.files import Log, file_digest, json_bytes, json_digest, read_json
from ift_jax.io.side_folder import find_side_file, write_side_file

_VERSION = 1  # It is raised when the checks change, and is a part of the notes.
_SAID_FROM = 10**9  # Bytes to read from which a run says what it is doing: seconds of work.


def damaged_stores(
    stores: Sequence[TokenStore], vocab_size: int, log: Log | None = None
) -> dict[Path, str]:
    """Compare the files of stores with their manifests, and their content with what can be trained.

    Args:
        stores: Stores in one folder.
        vocab_size: The number of the tokenizer's ids.
        log: Is told before much is read.

    Returns:
        What is wrong, by the paths of the stores that are damaged. Preparing mends it.

    Raises:
        UserError: A store holds an id outside the vocabulary or a weight that is not a finite
            number of at least 0, and was prepared so.
    """
    if not stores:
        return {}
    store_dir = stores[0].path.parent
    name = f"verified/{socket.gethostname()}.json"
    noted = _noted(store_dir, name)
    marks = {store.path: _mark(store, vocab_size) for store in stores}
    unknown = [store for store in stores if noted.get(store.path.name) != marks[store.path]]
    if not unknown:
        return {}

    n_bytes = sum(_size(path) for store in unknown for path in _part_paths(store))
    if log and n_bytes >= _SAID_FROM:
        log(
            f"checking {counted(len(unknown), 'store')}, {n_bytes / 1e9:,.1f} GB, once on this "
            "machine"
        )
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = {
            store.path: [
                pool.submit(_fault, path, sha256, vocab_size)
                for path, sha256 in zip(_part_paths(store), store.manifest["sha256"], strict=True)
            ]
            for store in unknown
        }
    damage = {}
    for path, of_parts in faults.items():
        if found := next(filter(None, (part.result() for part in of_parts)), ""):
            damage[path] = found
    good = {s.path.name: marks[s.path] for s in unknown if s.path not in damage}
    if good:
        # Read again: another run may have added to it meanwhile.
        content = json_bytes(_noted(store_dir, name) | good)
        write_side_file(store_dir, name, content, log)
    return damage


def _noted(store_dir: Path, name: str) -> dict[str, str]:
    """Return the marks of stores that were found good, by the stores' names."""
    file = find_side_file(store_dir, name)
    noted = read_json(file) if file else None
    return noted if isinstance(noted, dict) else {}


def _part_paths(store: TokenStore) -> list[Path]:
    return [part_path(store.path, i) for i in range(len(store.manifest["sha256"]))]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _mark(store: TokenStore, vocab_size: int) -> str:
    """Return a hash of what changes when a file of the store is written; "" if one is missing."""
    stats = []
    try:
        for path in (store.path / MANIFEST, *_part_paths(store)):
            found = os.stat(path)
            times = (found.st_mtime_ns, found.st_ctime_ns)
            stats.append([path.name, found.st_size, *times, found.st_ino])
    except OSError:
        return ""
    return json_digest([_VERSION, vocab_size, stats])


def _fault(path: Path, sha256: str, vocab_size: int) -> str:
    """Return what is wrong with a part; "" if nothing is.

    Raises:
        UserError: As `damaged_stores`.
    """
    try:
        if file_digest(path) != sha256:
            return f"{path.name} does not have the bytes that were written (SHA-256 differs)"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    with pa.memory_map(str(path)) as file:
        part = pa.ipc.open_file(file).get_batch(0)
    _check_content(part, vocab_size, str(path))
    return ""


def _check_content(part: pa.RecordBatch, vocab_size: int, where: str) -> None:
    """Raise a UserError for an id or a weight that cannot be trained on."""
    for name in ("tokens", "encoder_tokens", "choice_tokens"):
        ids = _flat(part, name)
        if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
            wrong = ids.min() if ids.min() < 0 else ids.max()
            raise UserError(
                f"{where}: column {name!r} holds id {wrong}; expected ids from 0 to "
                f"{vocab_size - 1}, those of the tokenizer: mend the task that gives it"
            )
    weights = _flat(part, "weights")
    # A comparison with NaN is false.
    if weights.size and not (weights.min() >= 0 and weights.max() < np.inf):
        [wrong] = weights[~((weights >= 0) & (weights < np.inf))][:1]
        raise UserError(
            f"{where}: column 'weights' holds {wrong}; expected finite numbers of at least 0: "
            "mend the task that gives it"
        )


def _flat(part: pa.RecordBatch, name: str) -> np.ndarray:
    """Return the numbers of a column of lists, or of lists of lists."""
    values: Any = part.column(name)
    while hasattr(values, "flatten") and pa.types.is_nested(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False)
