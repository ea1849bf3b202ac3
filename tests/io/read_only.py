"""A folder in which nothing can be written, also for root and on any file system."""

import contextlib
import errno
import os
import sys

_READ_ONLY: set[str] = set()
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link")
_installed = False


def _refuse(event, arguments):
    """An audit hook: Python calls it before it opens or changes a file."""
    if not _READ_ONLY:
        return
    if event == "open":
        path, _, flags = arguments
        paths = [path] if flags & _WRITES else []
    elif event in _CHANGES:
        paths = arguments[:2]
    else:
        return
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            real = os.path.realpath(os.fsdecode(path))
            for folder in _READ_ONLY:
                if real.startswith(folder + os.sep):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), real)


@contextlib.contextmanager
def read_only(folder):
    """Refuse all that Python would write below a folder, as a read-only file system does."""
    global _installed
    if not _installed:
        sys.addaudithook(_refuse)  # It stays until the process ends.
        _installed = True
    name = os.path.realpath(folder)
    _READ_ONLY.add(name)
    try:
        yield
    finally:
        _READ_ONLY.discard(name)
