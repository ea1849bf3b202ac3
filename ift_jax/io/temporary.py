"""Temporary files and folders: each is made for one process, never taken over.

Their names carry the host, the process and a random part, and they are created exclusively, so no
file of anybody else is ever written or deleted. What a killed process left behind is removed only
where its name proves that it is ours.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

_NAME_BYTES = 100  # The target's name is cut here; a file system allows 255 bytes in all.
_RANDOM_BYTES = 6
_REMOVE_SECONDS = 5.0
_made_here: set[str] = set()  # The names that this process is using.


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield a new empty file beside a target; remove it at the end, unless it has been renamed.

    Raises:
        OSError: The file cannot be created.
    """
    with _name_beside(target) as path:
        with open(path, "xb"):
            pass
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside a target; remove it at the end, unless it has been renamed.

    Raises:
        OSError: The folder cannot be created.
    """
    with _name_beside(target) as path:
        os.mkdir(path)
        try:
            yield path
        finally:
            _remove_folder(path)


def _remove_folder(path: Path) -> None:
    """Remove a folder, into which a thread of a failed write may still be writing."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if time.monotonic() > deadline:
            return  # The next command with the same target removes it.
        time.sleep(0.01)


def is_temporary(path: Path) -> bool:
    """Whether a path has a name as temporary files do, so that it may be gone the next moment."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine left of temporary files in a folder.

    The caller must hold the lock of all that is written there under temporary names, because a
    process in another container may have this machine's name and a number that is free here.
    """
    for path in _leftovers(folder, ".+"):
        _remove(path)


def remove_leftovers_of(target: Path) -> None:
    """Remove what killed processes of this machine left beside a target; as `remove_leftovers`."""
    for path in _leftovers(target.parent, re.escape(_shortened(target.name))):
        _remove(path)


@contextlib.contextmanager
def _name_beside(target: Path) -> Iterator[Path]:
    """Yield a path that no other process uses; it is known as in use until the end."""
    random = secrets.token_hex(_RANDOM_BYTES)
    name = f".{_shortened(target.name)}.{_host()}-{os.getpid()}-{random}.tmp"
    _made_here.add(name)
    try:
        yield target.with_name(name)
    finally:
        _made_here.discard(name)


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES])


def _host() -> str:
    return os.uname().nodename


def _leftovers(folder: Path, target: str) -> list[Path]:
    """Return the temporary names of a folder whose process was on this machine and has ended.

    Args:
        folder: Where to look; it may be absent.
        target: A regular expression for the targets' names.
    """
    digits = 2 * _RANDOM_BYTES
    name = re.compile(
        rf"\.{target}\.{re.escape(_host())}-(?P<pid>\d+)-[0-9a-f]{{{digits}}}\.tmp", re.DOTALL
    )
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = name.fullmatch(path.name)
        if match and path.name not in _made_here and not _runs(int(match["pid"])):
            found.append(path)
    return found


def _runs(pid: int) -> bool:
    """Whether a process of this machine, other than this one, has the number."""
    if pid == os.getpid():
        return False  # An earlier process had the number that this one has now.
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
