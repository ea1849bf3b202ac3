"""Small files about a folder of stores: in it or, if it may only be read, in the user's cache.

They can all be made again: plans of batches, notes of what was asked, checks of stores.
"""

import os
from pathlib import Path

from ift_jax.io.files import Log, json_digest, write
from ift_jax.io.locks import side_files_lock
from ift_jax.io.paths import is_remote, why_bucket_not_writable
from ift_jax.io.temporary import remove_leftovers, temporary_file

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
    paths = [store_dir / name, _in_cache(store_dir) / name]
    return next((path for path in paths if path.exists()), None)


def write_side_file(store_dir: Path, name: str, content: bytes, log: Log | None = None) -> None:
    """Write a file about a folder of stores, if it can be written anywhere.

    Args:
        store_dir: The folder of stores, local or in a bucket.
        name: A relative path.
        content: What it holds.
        log: Is told once if the folder itself cannot be written.

    Raises:
        WriteError: The disk is full.
    """
    key = _key(store_dir)
    if key not in _chosen:
        why = _why_not_writable(store_dir)
        _chosen[key] = _cache_instead(store_dir, why, log) if why else store_dir
    if (folder := _chosen[key]) is not None:
        path = folder / name
        with side_files_lock(folder):
            if not is_remote(folder):
                for of in (folder, path.parent):  # The first may hold the probe of a killed run.
                    remove_leftovers(of)
            write(path, content)


def _cache_instead(store_dir: Path, why: str, log: Log | None) -> Path | None:
    """Return the folder in the cache, or None if that cannot be written either; say which."""
    folder = None if _why_not_writable(_in_cache(store_dir)) else _in_cache(store_dir)
    if log:
        kept = f"kept in {folder}" if folder else "not kept"
        log(f"data.store_dir {store_dir}: {why}: plans and checks of stores are {kept}")
    return folder


def _why_not_writable(folder: Path) -> str:
    """Return why no file can be created in a folder, which is made if need be; "" if one can."""
    if is_remote(folder):
        return why_bucket_not_writable(os.fspath(folder))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_file(folder / "probe"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _in_cache(store_dir: Path) -> Path:
    return cache_folder() / "read_only_stores" / json_digest(_key(store_dir))[:16]


def _key(store_dir: Path) -> str:
    return os.fspath(store_dir) if is_remote(store_dir) else os.path.abspath(store_dir)
