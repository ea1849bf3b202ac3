"""Building stores: parts that are missing are made by an executor, then the manifests follow.

A store is built in `<name>.partial`, part by part, and renamed when it is whole, so that what was
made before an interruption is kept. A lock lets one process at a time build a store.
"""

import contextlib
import time
from collections.abc import Sequence

from ift_jax.config.schema import Config
from ift_jax.io.files import Log
from ift_jax.io.locks import build_lock
from ift_jax.io.paths import is_remote
from ift_jax.preparation.executors import Executor
from ift_jax.preparation.shards import Part
from ift_jax.preparation.store_plan import WantedStore
from ift_jax.preparation.store_writer import finish_store

_LOG_SECONDS = 5.0  # Between two lines of progress.
_AT_ONCE = 256  # Stores; each holds a lock file open while it is built.


def build_stores(
    config: Config, stores: Sequence[WantedStore], executor: Executor, log: Log
) -> None:
    """Build stores that do not exist, waiting for other processes that build the same ones.

    Args:
        config: The run's config.
        stores: What to build.
        executor: Makes the parts.
        log: Called with each progress line.

    Raises:
        UserError: A record cannot be read or encoded, or a worker was lost.
    """
    # In the order of their names, so that no two processes wait for one another in a ring.
    ordered = sorted(stores, key=lambda store: store.folder.name)
    for first in range(0, len(ordered), _AT_ONCE):
        batch = ordered[first : first + _AT_ONCE]
        with contextlib.ExitStack() as locks:
            for store in batch:
                locks.enter_context(build_lock(store.folder.parent, store.folder.name, log))
            missing = [store for store in batch if not store.exists]
            _make_parts(_parts_to_make(config, missing, log), executor, log)
            for store in missing:
                finish_store(store.partial_folder, store.folder, store.manifest(config))


def _parts_to_make(config: Config, stores: Sequence[WantedStore], log: Log) -> list[Part]:
    """Prepare the folders and return the parts that are not there from an earlier attempt."""
    parts: list[Part] = []
    for store in stores:
        if not is_remote(store.partial_folder):
            store.partial_folder.mkdir(exist_ok=True)
            for leftover in store.partial_folder.glob(".*.tmp"):
                leftover.unlink()
        parts += store.parts(config.data.variants)
    missing = [part for part in parts if not part.report_path.exists()]
    if len(missing) < len(parts):
        log(f"{len(parts) - len(missing)} of {len(parts)} parts are there already")
    return missing


def _make_parts(parts: Sequence[Part], executor: Executor, log: Log) -> None:
    examples = 0
    last_line = time.monotonic()
    for done, report in enumerate(executor.run(parts), 1):
        examples += report["examples"]
        if time.monotonic() > last_line + _LOG_SECONDS or done == len(parts):
            log(f"  part {done} of {len(parts)}: {examples:,} examples")
            last_line = time.monotonic()
