"""What became of one input, and the process that reads inputs one by one."""

import random
import resource
import shutil
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from tests.robustness.group import Case, Group, open_group

KINDS = ("refused", "accepted", "unclear", "wrongly accepted", "traceback", "slow", "killed")
GOOD = ("refused", "accepted")
# The most that a message may have: it names what it found, but does not print a whole file.
MOST_CHARACTERS = 700
# The memory that a process may reserve. What asks for terabytes gets a MemoryError.
_MEMORY = 14 << 30


class Outcome(NamedTuple):
    """What became of an input.

    Attributes:
        kind: One of KINDS: refused in one clear line; accepted; refused in a line that is not
            clear; accepted although it should not be; ended by another exception; took too long;
            ended the process.
        change: How the input was spoiled.
        detail: The message, the complaint, or the end of the traceback.
        seconds: The CPU time that reading took.
    """

    kind: str
    change: str
    detail: str
    seconds: float


def judge(group: Group, seed: str) -> Outcome:
    """Make an input, read it, and say what became of it.

    Args:
        group: The group.
        seed: Decides the input.
    """
    # Imported here: the parent process needs nothing of the package.
    from ift_jax.errors import UserError

    folder = Path(tempfile.mkdtemp(prefix="ift-fuzz-"))
    try:
        case = group.make(random.Random(seed), folder)
        start = time.process_time()
        try:
            value = group.read(case)
        except UserError as error:
            message = str(error)
            kind = "refused" if _is_clear(message, case, group) else "unclear"
            return Outcome(kind, case.change, message, time.process_time() - start)
        except Exception:
            lines = traceback.format_exc(limit=-3)
            return Outcome("traceback", case.change, lines[-1500:], time.process_time() - start)
        seconds = time.process_time() - start
        complaint = group.complaint(case, value)
        kind = "wrongly accepted" if complaint else "accepted"
        return Outcome(kind, case.change, complaint, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_clear(message: str, case: Case, group: Group) -> bool:
    """Whether a refusal is one line of a bounded length that names the file."""
    names_it = not group.names_file or str(case.path) in message
    return names_it and "\n" not in message and 0 < len(message) <= MOST_CHARACTERS


def serve(connection: Connection) -> None:
    """Judge the inputs that come through a pipe, (group, seed) each, until None comes."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    groups: dict[str, Group] = {}
    while (request := connection.recv()) is not None:
        name, seed = request
        group = groups.get(name)
        if group is None:
            group = groups[name] = open_group(name)
        connection.send(judge(group, seed))
