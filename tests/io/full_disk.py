"""A disk on which no large file can be written, without root or a file system of its own."""

import contextlib
import resource


@contextlib.contextmanager
def files_of_at_most(n_bytes):
    """Let every write to a file beyond so many bytes fail, as on a full disk.

    Python ignores the signal that comes with it, so the write raises an OSError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
