"""Opening stores where they are, or from copies on this machine where they are in a bucket."""

import concurrent.futures
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ift_jax.data.store import (
    MANIFEST,
    DamagedStore,
    TokenStore,
    manifest_bytes,
    part_path,
    read_manifest,
)
from ift_jax.data.store_check import damaged_stores
from ift_jax.io.files import Log, write
from ift_jax.io.paths import is_remote
from ift_jax.io.side_folder import cache_folder

_AT_ONCE = 16  # Parts that are fetched at a time: a request to a bucket is mostly waiting.


class OpenedStores(NamedTuple):
    """Stores by the folders that were asked for."""

    stores: dict[Path, TokenStore]
    damage: dict[Path, str]  # What is wrong with the others.


def open_stores(folders: Sequence[Path], vocab_size: int, log: Log | None = None) -> OpenedStores:
    """Open stores and check all that they hold, once per machine and content.

    A copy that has been damaged on this machine is fetched again.

    Args:
        folders: The stores, local or in a bucket.
        vocab_size: The number of the tokenizer's ids.
        log: Is told before much is read.

    Raises:
        UserError: A store was prepared with ids or weights that cannot be trained on.
    """
    stores, damage = _open(folders, vocab_size, log)
    if bad_copies := [folder for folder in damage if is_remote(folder)]:
        for folder in bad_copies:
            forget_copy(folder)
        fetched = _open(bad_copies, vocab_size, log)
        stores |= fetched.stores
        damage = {f: why for f, why in damage.items() if not is_remote(f)} | fetched.damage
    return OpenedStores(stores, damage)


def _open(folders: Sequence[Path], vocab_size: int, log: Log | None) -> OpenedStores:
    stores = {}
    damage = {}
    for folder in folders:
        try:
            stores[folder] = TokenStore.open(_local(folder))
        except DamagedStore as error:
            damage[folder] = str(error)
    faults = damaged_stores(list(stores.values()), vocab_size, log)
    for folder, store in list(stores.items()):
        if store.path in faults:
            damage[folder] = f"{folder}: {faults[store.path]}"
            del stores[folder]
    return OpenedStores(stores, damage)


def forget_copy(folder: Path) -> None:
    """Remove the copy on this machine of a store in a bucket."""
    if is_remote(folder):
        shutil.rmtree(_copy_of(folder), ignore_errors=True)


def _copy_of(folder: Path) -> Path:
    return cache_folder() / "stores" / folder.name


def _local(folder: Path) -> Path:
    """Return a store's folder on this machine: a copy of one in a bucket, fetched if need be.

    The name of a store says what is in it, so a copy never gets stale.

    Raises:
        DamagedStore: The bucket has no complete store, or a part is not what was written.
    """
    if not is_remote(folder):
        return folder
    copy = _copy_of(folder)
    if (copy / MANIFEST).exists():
        return copy
    manifest = read_manifest(folder)
    hashes = manifest["sha256"]

    def fetch(part: int) -> None:
        path = part_path(copy, part)
        content = part_path(folder, part).read_bytes()
        if hashlib.sha256(content).hexdigest() != hashes[part]:
            raise DamagedStore(f"{folder}/{path.name}: is not what was prepared")
        write(path, content)

    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(fetch, range(len(hashes))))
    write(copy / MANIFEST, manifest_bytes(manifest))
    return copy
