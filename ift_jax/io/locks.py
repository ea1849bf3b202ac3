"""File locks: one process builds a store, one run uses a workdir, one command writes an output.

A lock ends with the process that holds it, even if that is killed. A bucket has no locks.
"""

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from ift_jax.errors import UserError
from ift_jax.io.files import Log
from ift_jax.io.paths import is_remote
from ift_jax.io.temporary import remove_leftovers
from ift_jax.io.write_errors import write_errors

# What `flock` says where a file system has no locks, as some network file systems do.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextlib.contextmanager
def file_lock(
    path: str | os.PathLike[str], on_busy: Callable[[], None], *, temporary: bool = False
) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created along with its folder.

    What the file holds is left as it is. Where the file system has no locks, a line on standard
    error says so, and the block runs without one.

    Args:
        path: The file; for one in a bucket this does nothing.
        on_busy: Called if another process holds the lock. If it returns, this process waits; it
            may raise an error instead.
        temporary: Whether to remove the file at the end; a file that is not empty stays.

    Raises:
        WriteError: The file cannot be created.
    """
    if is_remote(path):
        yield
        return
    with write_errors(Path(path)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path, on_busy)
    try:
        yield
    finally:
        if temporary and os.fstat(descriptor).st_size == 0:
            # Before the lock is released, so that nobody else holds the lock of this file.
            Path(path).unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: str | os.PathLike[str], on_busy: Callable[[], None]) -> int:
    """Open and lock a file; return its descriptor.

    A process that waited may have got the lock of a file that its holder has removed; it then
    tries again with the file that has the name now.
    """
    while True:
        descriptor = _opened(path)
        try:
            _flock(descriptor, path, on_busy)
            if _has_name(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _opened(path: str | os.PathLike[str]) -> int:
    """Open a lock file, which another user may have created."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)  # Enough for a lock, except on NFS.


def _flock(descriptor: int, path: str | os.PathLike[str], on_busy: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_busy()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(
            f"warning: {os.fspath(path)}: the file system has no locks ({error.strerror}); do not "
            "start two commands at once that write there",
            file=sys.stderr,
        )


def _has_name(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether an open file is the one that has a name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


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


@contextlib.contextmanager
def run_lock(workdir: str) -> Iterator[None]:
    """Lock the workdir of a run, and remove the temporary files that a killed run left there.

    Raises:
        UserError: On entering, if another process is training there.
    """

    def on_busy() -> None:
        raise UserError(f"--workdir {workdir}: another process is training here") from None

    with file_lock(os.path.join(workdir, ".lock"), on_busy):
        if not is_remote(workdir):
            for folder in (Path(workdir), Path(workdir, "tokenizer")):
                remove_leftovers(folder)
        yield


def side_files_lock(store_dir: Path) -> AbstractContextManager[None]:
    """Lock the small files about a folder of stores, each of which is written in no time."""
    return file_lock(store_dir / "locks" / "side_files.lock", lambda: None)


def output_lock(path: str, flag: str) -> AbstractContextManager[None]:
    """Lock a file or folder that a command is about to write, by an empty file beside it.

    Args:
        path: The local file or folder.
        flag: The flag that it comes from; for messages.

    Raises:
        UserError: On entering, if another process is writing it.
    """

    def on_busy() -> None:
        raise UserError(f"{flag} {path}: another process is writing it") from None

    target = Path(os.path.realpath(path))
    return file_lock(target.with_name(f".{target.name}.lock"), on_busy, temporary=True)
