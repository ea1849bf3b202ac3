"""What a command writes: checked before any work, and written by one process at a time.

The checks create nothing, so a command that is refused leaves nothing behind.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ift_jax.errors import UserError, WriteError
from ift_jax.io.files import write_atomically
from ift_jax.io.locks import output_lock
from ift_jax.io.paths import check_bucket, is_remote
from ift_jax.io.temporary import remove_leftovers_of
from ift_jax.io.write_errors import write_errors


@contextlib.contextmanager
def new_output(path: str, flag: str) -> Iterator[None]:
    """Reserve a folder that the block makes with `ift_jax.io.folders.new_folder`.

    What an interrupted command left beside it is removed.

    Args:
        path: The folder. Nothing is done for one in a bucket, which has no locks.
        flag: The flag that `path` comes from; for messages.

    Raises:
        UserError: `path` is not a new folder, or another process is making it.
    """
    if is_remote(path):
        yield
        return
    check_new_folder(path, flag)
    with output_lock(path, flag):
        check_new_folder(path, flag)  # The process that had the lock before may have made it.
        remove_leftovers_of(Path(os.path.realpath(path)))
        yield


@contextlib.contextmanager
def file_output(path: str | None, flag: str, *, appends: bool = False) -> Iterator[None]:
    """Reserve a file that the block writes.

    Args:
        path: The file; None for none.
        flag: The flag that `path` comes from; for messages.
        appends: Whether the block appends to the file, which must then be a regular one.

    Raises:
        UserError: The file cannot be written, or another process is writing it.
    """
    if path is None:
        yield
        return
    check_file(path, flag, appends=appends)
    if not _may_be_replaced(path):
        yield  # A device or a pipe, such as /dev/stdout.
        return
    with output_lock(path, flag):
        remove_leftovers_of(Path(os.path.realpath(path)))
        yield


def write_output(path: str, content: bytes) -> None:
    """Write a file that a flag names; a regular one is there as a whole or as it was before.

    Raises:
        WriteError: The file cannot be written.
    """
    if not _may_be_replaced(path):
        with write_errors(path), open(path, "wb") as file:
            file.write(content)
        return
    target = Path(os.path.realpath(path))  # A link stays one.
    with write_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(target, content)
    except WriteError as error:
        raise WriteError(str(error).replace(str(target), path, 1)) from error


def check_file(path: str, flag: str, *, appends: bool = False) -> None:
    """Check that a file can be written; the folders above it need not exist.

    Raises:
        UserError: It cannot.
    """
    if os.path.isdir(path):
        raise UserError(f"{flag} {path}: is a folder; expected a file to write")
    if appends and not _may_be_replaced(path):
        raise UserError(f"{flag} {path}: is no regular file; expected one to append to")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise UserError(f"{flag} {path}: may not be written")
    if _may_be_replaced(path):
        _check_parent(path, flag)


def check_folder(path: str, flag: str) -> None:
    """Check that files can be written into a folder, which need not exist.

    Raises:
        UserError: They cannot.
    """
    if not os.path.isdir(path):
        _check_absent_folder(path, flag)
    elif not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: the folder may not be written")


def check_space(path: str, n_bytes: float, flag: str) -> None:
    """Check that the disk of a local path has room for so many bytes.

    Raises:
        UserError: It has not.
    """
    free = shutil.disk_usage(_existing_folder(path)).free
    if free < n_bytes:
        raise UserError(
            f"{flag} {path}: takes {_size(n_bytes)}, and its disk has {_size(free)} free; make "
            "room, or name a folder on another disk"
        )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def check_workdir(path: str) -> None:
    """Check that a run can write into its workdir, on this machine or in a bucket.

    Raises:
        UserError: It cannot.
    """
    if is_remote(path):
        check_bucket(path, writes=True)
    else:
        check_folder(path, "--workdir")


def check_new_folder(path: str, flag: str) -> None:
    """Check that a folder can be made; one that is there and empty may be replaced.

    Raises:
        UserError: It cannot, or it is not empty.
    """
    if not os.path.isdir(path):
        _check_absent_folder(path, flag)
        return
    if os.path.ismount(path):
        raise UserError(f"{flag} {path}: something is mounted here; name a new folder in it")
    try:
        is_empty = not os.listdir(path)
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot be read: {error.strerror}") from error
    if not is_empty:
        raise UserError(f"{flag} {path}: is not empty; name a new folder")
    _check_parent(path, flag)


def _check_absent_folder(path: str, flag: str) -> None:
    if os.path.exists(path):
        raise UserError(f"{flag} {path}: is a file; expected a folder")
    _check_parent(path, flag)


def _check_parent(path: str, flag: str) -> None:
    """Check that the nearest folder above a path that exists may be written."""
    parent = _existing_folder(os.path.dirname(os.path.realpath(path)))
    if not os.path.isdir(parent):
        raise UserError(f"{flag} {path}: {parent} is a file; expected a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {path}: the folder {parent} may not be written")


def _existing_folder(path: str) -> str:
    """Return the path itself or, if there is no such thing, the nearest folder above it."""
    path = os.path.realpath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def _may_be_replaced(path: str) -> bool:
    """Whether a path is a regular file, or nothing yet; a device must never be replaced."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return True
    except OSError:
        return True  # A file stands where a folder should; `check_file` says so.
