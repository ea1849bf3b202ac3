"""How a command ends that fails: one line for a user's mistake, a traceback for ours."""

import errno
import sys
import traceback

from ift_jax.errors import UserError

USER_ERROR = 2
OUR_ERROR = 1
_REPORT = (
    "this is a fault of ift_jax rather than yours: please report it with the lines above; "
    "CONTRIBUTING.md, Report a fault, says where and with what"
)
_OUT_OF_MEMORY = (
    "out of memory: {why}; smaller are a batch (train.batch_size, or more "
    "train.gradient_accumulation_steps), a row (data.max_length) and what is kept for the backward "
    "pass (model.remat): docs/memory.md"
)
# A disk that is full or may only be read: nothing that the command could have checked before.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def report(error: Exception, *, debug: bool) -> int:
    """Print what went wrong, and return the exit status.

    Args:
        error: What a command raised.
        debug: Whether the traceback of a user's mistake is printed too.
    """
    line = _line(error)
    if line is None:
        traceback.print_exception(error)
        print(f"error: {_REPORT}", file=sys.stderr)
        return OUR_ERROR
    if debug:
        traceback.print_exception(error)
    print(f"error: {line}", file=sys.stderr)
    return USER_ERROR


def output_is_full(error: OSError) -> bool:
    """Whether standard output, which has no file name, is on a disk that is full."""
    return error.errno in _DISK and error.filename is None


def _line(error: Exception) -> str | None:
    """Return the one line for a mistake of the user or a limit of the machine, else None."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    if isinstance(error, MemoryError):
        return _OUT_OF_MEMORY.format(why=text[:200] or "the host has no more")
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.filename}: cannot be written: {error.strerror}"
    # JAX's exception is known by its text: importing JAX for its class would take a second.
    if "RESOURCE_EXHAUSTED" in text:
        _, _, why = text.partition("RESOURCE_EXHAUSTED: ")
        return _OUT_OF_MEMORY.format(why=why[:200])
    return None
