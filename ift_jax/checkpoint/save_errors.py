"""A checkpoint that cannot be written, in one line."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import orbax.checkpoint as ocp  # noqa: F401 - makes the logger below, which is of a class of its own.

from ift_jax.errors import WriteError
from ift_jax.io.write_errors import why_not_written

# TensorStore's errors are ValueErrors whose text begins with the name of a status, and holds the
# system's error code if there is one.
_STATUS = re.compile(r"[A-Z]+(?:_[A-Z]+)*: ")
_SYSTEM_ERROR = re.compile(r"\[os_error_code='?(\d+)'?\]")
_SHOWN = 300  # Characters of another's message that are shown.


@contextlib.contextmanager
def save_errors(path: str) -> Iterator[None]:
    """Turn the error of a failed save in the block into a line that names the checkpoint.

    Raises:
        WriteError: In place of an error of the disk or the bucket; others pass.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise WriteError(f"{path}: the checkpoint cannot be written: {reason}") from error


def _reason(error: Exception) -> str | None:
    """Return what the disk or the bucket said; None for an error of another kind."""
    text = " ".join(str(error).split())
    if not _STATUS.match(text):
        return why_not_written(error)
    if code := _SYSTEM_ERROR.search(text):
        return os.strerror(int(code[1]))
    return text[:_SHOWN]


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Whether a log record is anything but a traceback of Orbax."""
    return not (record.exc_info and "orbax" in record.pathname + record.getMessage())


def _hide_closed_loops(unraisable: Any) -> None:
    """Print nothing if a write ends after the event loop that awaited it, as after a failure."""
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        _print_unraisable(unraisable)


# A failed save is raised, and reported in one line. Besides, Orbax logs its traceback on each
# thread that passes it on, asyncio that of each array, and Python one for each write that is late.
for _name in ("absl", "asyncio"):
    logging.getLogger(_name).addFilter(_is_not_of_orbax)
_print_unraisable = sys.unraisablehook
sys.unraisablehook = _hide_closed_loops
