"""File locks: one process builds a store, one run uses a workdir.

A lock ends with the process that holds it, even if that is killed. A bucket has no locks.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from ift_jax.errors import UserError
from ift_jax.io.files import Log
from ift_jax.io.paths import is_remote


@contextlib.contextmanager
def file_lock(path: str | os.PathLike[str], on_busy: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created along with its folder.

    Args:
        path: The file; for one in a bucket this does nothing.
        on_busy: Called if another process holds the lock. If it returns, this process waits; it
            may raise an error instead.
    """
    if is_remote(path):
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_lock(store_dir: Path, name: str, log: Log) -> AbstractContextManager[None]:
    """Lock what a process is about to build in a folder of stores; wait for another builder.

    Two processes that build the same store in a bucket at once write the same bytes.

    Args:
        store_dir: The folder of the stores.
        name: The name of the store (or tokenizer) in it.
        log: Is told if this process has to wait.
    """

    def on_busy() -> None:
        log(f"waiting for another process that builds {name}")

    return file_lock(store_dir / "locks" / f"{name}.lock", on_busy)


def run_lock(workdir: str) -> AbstractContextManager[None]:
    """Lock the workdir of a run.

    Raises:
        UserError: On entering, if another process is training there.
    """

    def on_busy() -> None:
        raise UserError(f"--workdir {workdir}: another process is training here") from None

    return file_lock(os.path.join(workdir, ".lock"), on_busy)
