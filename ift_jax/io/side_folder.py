"""Small files about a folder of stores: in it or, if it may only be read, in the user's cache.

They can all be made again: plans of batches, notes of what was asked, checks of stores.
"""

import os
from pathlib import Path

from ift_jax.io.files import Log, json_digest, write
from ift_jax.io.paths import is_remote
from ift_jax.io.temporary import temporary_file

_chosen: dict[str, Path | None] = {}  # By folder: probing once per process is enough.


def cache_folder() -> Path:
    """Return the user's folder for what can be made again: `IFT_JAX_CACHE`, or ~/.cache/ift_jax."""
    return Path(os.environ.get("IFT_JAX_CACHE") or "~/.cache/ift_jax").expanduser()


def find_side_file(store_dir: Path, name: str) -> Path | None:
    """Return the file of that name, wherever it was written, or None if there is none.

    Args:
        store_dir: The folder of stores.
        name: A relative path.
    """
    folders = [store_dir] if is_remote(store_dir) else [store_dir, _in_cache(store_dir)]
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def write_side_file(store_dir: Path, name: str, content: bytes, log: Log | None = None) -> None:
    """Write a file about a folder of stores, if it can be written anywhere.

    Args:
        store_dir: The folder of stores.
        name: A relative path.
        content: What it holds.
        log: Is told once if the folder itself cannot be written.

    Raises:
        WriteError: The disk is full.
    """
    folder = _folder_to_write(store_dir, log)
    if folder is not None:
        write(folder / name, content)


def _folder_to_write(store_dir: Path, log: Log | None) -> Path | None:
    """Return the folder for the side files of a folder of stores; None if there is none."""
    if is_remote(store_dir):
        return store_dir
    key = os.path.abspath(store_dir)
    if key not in _chosen:
        reason = _why_not_writable(store_dir)
        _chosen[key] = store_dir if not reason else _in_cache(store_dir)
        if reason and _why_not_writable(_in_cache(store_dir)):
            _chosen[key] = None
        if reason and log:
            kept = f"kept in {_chosen[key]}" if _chosen[key] else "not kept"
            log(f"data.store_dir {store_dir}: {reason}: plans and checks of stores are {kept}")
    return _chosen[key]


def _why_not_writable(folder: Path) -> str:
    """Return why no file can be created in a folder, which is made if need be; "" if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_file(folder / "probe"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _in_cache(store_dir: Path) -> Path:
    return cache_folder() / "read_only_stores" / json_digest(os.path.abspath(store_dir))[:16]
