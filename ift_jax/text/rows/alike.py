"""Counting the rows that are wrong in the same way as the first one that was found."""

import itertools
import re
from collections.abc import Callable, Iterable

from ift_jax.errors import UserError

_COUNTED = 20_000  # Rows after a wrong one in which others like it are looked for.


def with_count(error: UserError, attempts: Iterable[Callable[[], object]]) -> UserError:
    """Return an error that says how many of the rows after it have the same one.

    Args:
        error: The error of the first row.
        attempts: Does for each later row what raised the error; a limited number is tried.
    """
    kind = _kind(error)
    count = 0
    for attempt in itertools.islice(attempts, _COUNTED):
        try:
            attempt()
        except UserError as another:
            count += _kind(another) == kind
    return UserError(f"{error} (and {count:,} more like it)") if count else error


def _kind(error: UserError) -> str:
    """Return what is wrong, without the place and the values."""
    return re.sub(r"'[^']*'|\d+", "", str(error).partition(": ")[2])
