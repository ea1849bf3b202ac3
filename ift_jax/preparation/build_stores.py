"""Building stores: parts that are missing are made by an executor, then the manifests follow.

A store is built in `<name>.partial`, part by part, and renamed when it is whole, so that what was
made before an interruption is kept. A store that is damaged is built again in the same way, from
what is left of it. A lock lets one process at a time build a store.
"""

import concurrent.futures
import contextlib
import hashlib
import time
from collections.abc import Container, Sequence
from pathlib import Path

from ift_jax.config.schema import Config
from ift_jax.data.store_copies import forget_copy, open_stores
from ift_jax.errors import counted
from ift_jax.io.files import Log, read_json
from ift_jax.io.locks import build_lock
from ift_jax.io.paths import is_remote
from ift_jax.io.temporary import remove_leftovers
from ift_jax.io.write_errors import write_errors
from ift_jax.preparation.executors import Executor
from ift_jax.preparation.shards import Part
from ift_jax.preparation.store_plan import WantedStore
from ift_jax.preparation.store_writer import finish_store

_LOG_SECONDS = 5.0  # Between two lines of progress.
_FINISHED_AT_ONCE = 32  # Stores; threads that do nothing but wait.
_AT_ONCE = 256  # Stores; each holds a lock file open while it is built.


def build_stores(
    config: Config, stores: Sequence[WantedStore], vocab_size: int, executor: Executor, log: Log
) -> None:
    """Build stores that do not exist or are damaged, waiting for processes that build the same.

    Args:
        config: The run's config.
        stores: What to build.
        vocab_size: The number of the tokenizer's ids.
        executor: Makes the parts.
        log: Called with each progress line.

    Raises:
        UserError: A record cannot be read or encoded, or a worker was lost.
        WriteError: The folder of the stores cannot be written.
    """
    # In the order of their names, so that no two processes wait for one another in a ring.
    ordered = sorted(stores, key=lambda store: store.folder.name)
    for first in range(0, len(ordered), _AT_ONCE):
        batch = ordered[first : first + _AT_ONCE]
        with contextlib.ExitStack() as locks:
            for store in batch:
                locks.enter_context(build_lock(store.folder.parent, store.folder.name, log))
            # Another process may have made some of them while this one waited.
            damage = find_damage(batch, vocab_size)
            missing = [store for store in batch if not store.exists or store.folder in damage]
            for store in missing:
                if store.folder in damage:
                    with write_errors(store.folder):
                        store.take_apart()
                    forget_copy(store.folder)
            _make_parts(_parts_to_make(missing, damage, log), executor, log)
            _finish(config, missing)


def _finish(config: Config, stores: Sequence[WantedStore]) -> None:
    """Finish stores whose parts are all made, many at once: each waits for the disk."""
    manifests = [store.manifest(config) for store in stores]
    partial_folders = [store.partial_folder for store in stores]
    with concurrent.futures.ThreadPoolExecutor(_FINISHED_AT_ONCE) as pool:
        folders = [store.folder for store in stores]
        list(pool.map(finish_store, partial_folders, folders, manifests))


def find_damage(
    stores: Sequence[WantedStore], vocab_size: int, log: Log | None = None
) -> dict[Path, str]:
    """Return what is wrong with those of the stores that exist, by their folders.

    Args:
        stores: The stores, of which some may not exist.
        vocab_size: The number of the tokenizer's ids.
        log: Is told before much is read.

    Raises:
        UserError: A store was prepared with ids or weights that cannot be trained on.
    """
    existing = [store.folder for store in stores if store.exists]
    return open_stores(existing, vocab_size, log).damage


def _parts_to_make(stores: Sequence[WantedStore], damaged: Container[Path], log: Log) -> list[Part]:
    """Prepare the folders; return the parts that are missing, or not what their reports say."""
    parts: list[Part] = []
    missing: list[Part] = []
    for store in stores:
        remote = is_remote(store.partial_folder)
        if not remote:
            with write_errors(store.partial_folder):
                store.partial_folder.mkdir(exist_ok=True)
                remove_leftovers(store.partial_folder)
        parts += store.parts
        # To compare a part in a bucket is to fetch it.
        is_made = _is_reported if remote and store.folder not in damaged else _is_whole
        missing += [part for part in store.parts if not is_made(part)]
    if len(missing) < len(parts):
        log(f"{len(parts) - len(missing)} of {counted(len(parts), 'part')} are there already")
    return missing


def _is_reported(part: Part) -> bool:
    return part.report_path.exists()


def _is_whole(part: Part) -> bool:
    """Whether every file of a part has the bytes that its report says."""
    for path, report_path in zip(part.paths, part.report_paths, strict=True):
        report = read_json(report_path)
        if not isinstance(report, dict) or not path.exists():
            return False
        if hashlib.sha256(path.read_bytes()).hexdigest() != report.get("sha256"):
            return False
    return True


def _make_parts(parts: Sequence[Part], executor: Executor, log: Log) -> None:
    examples = 0
    last_line = time.monotonic()
    for done, report in enumerate(executor.run(parts), 1):
        examples += report["examples"]
        if time.monotonic() > last_line + _LOG_SECONDS or done == len(parts):
            log(f"  part {done} of {len(parts)}: {counted(examples, 'example')}")
            last_line = time.monotonic()
