"""The exception for a user's mistakes."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a data file or a command line.

    The message is one clear line: what is wrong, where (file, line, field), and what was expected.
    Commands print it after `error:` and exit with status 2. A traceback is for our own mistakes
    only.
    """


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest of the names, or nothing if none is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
