"""Stores in a bucket: written part by part, read from a copy on this machine."""

import concurrent.futures
import hashlib
import os
from pathlib import Path

from ift_jax.data.store import MANIFEST, part_path
from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes, read_json, write
from ift_jax.io.paths import is_remote

_AT_ONCE = 16  # Parts that are fetched at a time: a request to a bucket is mostly waiting.


def cache_folder() -> Path:
    """Return the folder for copies of what buckets hold: `IFT_JAX_CACHE`, or ~/.cache/ift_jax."""
    return Path(os.environ.get("IFT_JAX_CACHE") or "~/.cache/ift_jax").expanduser()


def local_copy(folder: Path) -> Path:
    """Return a store's folder on this machine: a copy of one in a bucket, fetched if need be.

    The name of a store says what is in it, so a copy never gets stale. Where the bucket has no
    whole store, nothing is fetched.

    Raises:
        UserError: A part is not what was written.
    """
    if not is_remote(folder):
        return folder
    copy = cache_folder() / "stores" / folder.name
    if (copy / MANIFEST).exists():
        return copy
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        return copy

    def fetch(part: int) -> None:
        path = part_path(copy, part)
        content = part_path(folder, part).read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["sha256"][part]:
            raise UserError(f"{folder}/{path.name}: is not what was prepared; delete the store")
        write(path, content)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(fetch, range(len(manifest["sha256"]))))
    write(copy / MANIFEST, json_bytes(manifest))
    return copy
