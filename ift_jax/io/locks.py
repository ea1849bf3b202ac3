"""File locks: one builder a store, one run a workdir."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ift_jax.errors import UserError
from ift_jax.io.files import Log
from ift_jax.io.paths import is_remote


@contextlib.contextmanager
def locked(store_dir: Path, name: str, log: Log) -> Iterator[None]:
    """Holds the lock of a store; waits while another process has it. A dead one holds none.

    A bucket has no locks: two that make a store there write the same bytes.
    """
    if is_remote(store_dir):
        yield
        return
    folder = store_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another process that builds {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def alone_in(workdir: str) -> Iterator[None]:
    """Refuses a second run in the same workdir; a dead one holds no lock."""
    if is_remote(workdir):  # A bucket has no locks.
        yield
        return
    with open(os.path.join(workdir, ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--workdir {workdir}: another process is training here") from None
        yield
