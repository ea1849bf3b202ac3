"""An error of the disk, or of a bucket, as one line that names the file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ift_jax.errors import UserError, WriteError

_SHOWN = 300  # Characters of a client's message that are shown.


@contextlib.contextmanager
def write_errors(path: str | Path) -> Iterator[None]:
    """Turn an error of the block, which writes to a file or folder, into a line that names it.

    Raises:
        WriteError: In place of an error of the disk or the bucket; others pass.
    """
    try:
        yield
    except Exception as error:
        reason = why_not_written(error)
        if reason is None:
            raise
        raise WriteError(f"{path}: cannot be written: {reason}") from error


@contextlib.contextmanager
def named_as(path: str | Path, temporary: str | Path) -> Iterator[None]:
    """Name `path` in a UserError of the block that names `temporary`, which no user knows.

    Raises:
        UserError: In place of one of the block, of the same class.
    """
    try:
        yield
    except UserError as error:
        if str(temporary) not in str(error):
            raise
        raise type(error)(str(error).replace(str(temporary), str(path))) from error


def why_not_written(error: Exception) -> str | None:
    """What a disk or a bucket said that could not be written; None for an error of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # The clients of buckets have exceptions of their own: TensorFlow's, and Google's.
    if type(error).__module__.startswith(("tensorflow.", "google.")):
        return " ".join(str(error).split())[:_SHOWN]
    return None
