"""Stores in a bucket: written part by part, read from a copy on this machine."""

import concurrent.futures
import hashlib
import os
from pathlib import Path

from ift_jax.data.store import MANIFEST, part_path
from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes, read_json, write
from ift_jax.io.paths import is_remote

_AT_ONCE = 16  # Parts on their way: a request to a bucket is mostly waiting.


def cache() -> Path:
    """Where copies of what buckets hold are kept: `IFT_JAX_CACHE`."""
    return Path(os.environ.get("IFT_JAX_CACHE") or "~/.cache/ift_jax").expanduser()


def fetched(folder: Path) -> Path:
    """The copy of a store in a bucket, made where there is none; a local store itself.

    Its name says what is in it, so a copy stays right. UserError: a part is not what was written.
    """
    if not is_remote(folder):
        return folder
    copy = cache() / "stores" / folder.name
    if (copy / MANIFEST).exists() or (manifest := read_json(folder / MANIFEST)) is None:
        return copy

    def fetch(part: int) -> None:
        content, path = part_path(folder, part).read_bytes(), part_path(copy, part)
        if hashlib.sha256(content).hexdigest() != manifest["sha256"][part]:
            raise UserError(f"{folder}/{path.name}: is not what was prepared; delete the store")
        write(path, content)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(fetch, range(len(manifest["sha256"]))))
    write(copy / MANIFEST, json_bytes(manifest))
    return copy
