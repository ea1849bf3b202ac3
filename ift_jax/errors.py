"""The exception for a user's mistakes, and how an exception of a user's own code becomes one."""

import contextlib
import difflib
import numbers
import os
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence

# Where a traceback inside a message (TensorFlow's messages have one) says what was raised where.
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_RAISED = re.compile(
    r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Warning)\w*): *(.*)$", re.M
)
_NOT_THEIRS = (  # Code that no user wrote: this package, installed ones, Python's own.
    os.path.dirname(os.path.abspath(__file__)),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)
_LISTED = 5  # Names that a message lists.
_OFFERED = 20  # Names that a message offers in place of one that does not exist.
_SHOWN = 300  # Characters of another's message that are shown.


class UserError(Exception):
    """A mistake in a config, a data file or a command line.

    The message is one clear line: what is wrong, where (file, line, field), and what was expected.
    Commands print it after `error:` and exit with status 2. A traceback is for our own mistakes
    only.
    """


class WriteError(UserError):
    """A file that cannot be written, on a disk that is full, say. The message names the file."""


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The nearest of the names, or "" if none is near.

    Args:
        name: What was given.
        names: What could have been meant.
        cutoff: How near it must be, from 0 to 1 (`difflib.SequenceMatcher.ratio`).
    """
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), "")


def did_you_mean(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`; did you mean ...?` with the nearest of the names, or nothing if none is near.

    For messages that say what was expected in another way; see `offered` for all others.

    Args:
        name: What was given.
        names: What could have been meant.
        cutoff: As `nearest` takes it.
    """
    near = nearest(name, names, cutoff=cutoff)
    return f"; did you mean {near!r}?" if near else ""


def offered(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The end of a message about a name that does not exist: what could have been meant.

    Args:
        name: What was given.
        names: The names that exist.
        cutoff: As `nearest` takes it.

    Returns:
        `; did you mean ...?` if a name is near, else `; there are ...` with the names, or "" if
        there are none.
    """
    there = list(names)
    if near := did_you_mean(name, there, cutoff=cutoff):
        return near
    if not there:
        return ""
    return f"; there {'is' if len(there) == 1 else 'are'} {listed(there, _OFFERED)}"


def counted(n: float, noun: str) -> str:
    """A number of things, such as "1 task", "1,200 tasks" or "0.5 epochs"."""
    number = f"{n:,}" if isinstance(n, numbers.Integral) else f"{n:g}"
    return f"{number} {noun}" if n == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], most: int = _LISTED) -> str:
    """The first few names of a list, at most so many, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


@contextlib.contextmanager
def of_users_code(what: str) -> Iterator[None]:
    """Turns an exception of a user's own object into one line that says whose it is.

    The object is a source, a preprocessor, a module of tasks, a rate, a metric: anything that we
    call and did not write.

    Args:
        what: Whose code runs, such as "task 'sums', split 'train'".

    Raises:
        UserError: The code raised an exception. A UserError passes as it is.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        raise mistake_of(what, error) from None


def mistake_of(what: str, error: BaseException) -> UserError:
    """Returns the one line for an exception of a user's own code.

    The traceback, which `ift --debug` prints, is a note of it: text passes from one process to
    another, and keeps alive nothing of what the traceback refers to.

    Args:
        what: Whose code raised it.
        error: The exception; a UserError is returned as it is.
    """
    if isinstance(error, UserError):
        return error
    mistake = UserError(f"{what}: {described(error)}; --debug shows the traceback")
    mistake.add_note("".join(traceback.format_exception(error)))
    return mistake


def described(error: BaseException, *, place: bool = True) -> str:
    """An exception of somebody's code in one line: its type, its message, and the line of code.

    An exception that TensorFlow passed on is described as it was raised in the first place.

    Args:
        error: The exception.
        place: Whether the last line of a user's code that it passed through is named.
    """
    text = str(error)
    name = type(error).__name__
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if inner := _PLACE.findall(text):
        places += [(file, int(line)) for file, line in inner]
        if raised := _RAISED.findall(text):
            name, text = raised[-1]
    message = " ".join(text.split())
    if len(message) > _SHOWN:
        message = f"{message[:_SHOWN]}..."
    line = f"{name}: {message}" if message else name
    theirs = [f"{file}:{number}" for file, number in places if _is_theirs(file)]
    return f"{line} ({theirs[-1]})" if place and theirs else line


def _is_theirs(file: str) -> bool:
    """Whether a user wrote a file: TensorFlow runs generated copies of a user's functions."""
    return os.path.isfile(file) and not file.startswith(_NOT_THEIRS) and "autograph" not in file
