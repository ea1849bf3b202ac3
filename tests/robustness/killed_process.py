"""An `ift` command in a process of its own, and a signal at an instant of its work.

Instants are measured in CPU time of the process and its workers: on a busy machine the same work
takes more seconds, but not more CPU time.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from tests.robustness.killed_commands import Command

REPO = Path(__file__).parents[2]
LIMIT = 300.0  # Seconds that a run may take.
_POLL = 0.005
_TICKS = os.sysconf("SC_CLK_TCK")
_ORPHAN_SECONDS = 15.0  # In which worker processes must notice that their parent is gone.
# The share of each signal: most are SIGKILL, for which a command can do nothing.
_SHARES = {signal.SIGKILL: 0.6, signal.SIGTERM: 0.2, signal.SIGINT: 0.2}
_START_UP_SHARE = 0.15
_LONGEST_WAIT = 0.1  # Seconds; a file is written to disk in less.


class Instant(NamedTuple):
    """When a run is killed, and how.

    Attributes:
        works: Whether the time counts from the first file that the run wrote; else from its start.
        fraction: Of the CPU time of the uninterrupted run's work, or of its start-up.
        number: The signal.
        of_group: Whether its worker processes get it too, as those in a terminal get Ctrl-C.
        later: Seconds from there to the signal, so that it also comes while the process waits.
    """

    works: bool
    fraction: float
    number: signal.Signals
    of_group: bool
    later: float = 0.0


class Times(NamedTuple):
    """How much CPU time the uninterrupted run took.

    Attributes:
        start_up: Seconds until it wrote its first file.
        work: Seconds from there to its end.
    """

    start_up: float
    work: float


class Ended(NamedTuple):
    """A run that has ended.

    Attributes:
        status: The exit status; negative if a signal ended the process.
        output: All that it printed.
        times: How much CPU time it took.
        signaled: Whether it got the signal.
        wrote: Whether it had written a file when the signal came, and for how many seconds; None if
            it had not.
        orphans: Whether a worker process was left.
    """

    status: int
    output: str
    times: Times
    signaled: bool
    wrote: float | None
    orphans: bool


def instants_of(chance: random.Random) -> list[Instant]:
    """Return the kills of one trial, of which each run but the last gets one."""
    n_kills = chance.choices((1, 2, 3), (0.4, 0.35, 0.25))[0]
    instants = []
    for earlier in range(n_kills):
        number = chance.choices(list(_SHARES), list(_SHARES.values()))[0]
        of_group = number == signal.SIGINT or chance.random() < 0.5
        # A run that continues has less to do.
        fraction = chance.random() * 0.7**earlier
        works = chance.random() >= _START_UP_SHARE
        later = chance.random() * _LONGEST_WAIT
        instants.append(Instant(works, fraction, number, of_group, later))
    return instants


def run(
    command: Command, folder: Path, instant: Instant | None = None, times: Times | None = None
) -> Ended:
    """Run a command; with an instant, send the signal then, if the run is not over before.

    Args:
        command: The command.
        folder: The trial's folder.
        instant: When to kill it.
        times: How long the uninterrupted run took.
    """
    watched = folder / "out"
    before = _snapshot(watched)
    log = folder / f"log-{len(list(folder.glob('log-*')))}.txt"
    start = time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command.words(folder),
            cwd=REPO,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    began: float | None = None
    cpu = cpu_at_first_file = 0.0
    due: float | None = None
    signaled = False
    wrote: float | None = None
    try:
        while process.poll() is None:
            now = time.monotonic()
            assert now - start < LIMIT, f"still running after {LIMIT:g} s: {log.read_text()[-900:]}"
            cpu = max(cpu, _cpu_seconds(process.pid))
            if began is None and _snapshot(watched) != before:
                began, cpu_at_first_file = now, cpu
            if instant and times and due is None and (began is not None or not instant.works):
                base, span = (
                    (cpu_at_first_file, times.work) if instant.works else (0.0, times.start_up)
                )
                due = now + instant.later if cpu - base >= instant.fraction * span else None
            if instant and due is not None and now >= due and not signaled:
                signaled = _send(process, instant)
                wrote = None if began is None else now - began
            time.sleep(_POLL)
        orphans = not _group_is_gone(process.pid)
    finally:
        _kill_group(process.pid)
        process.wait()
    start_up = cpu if began is None else cpu_at_first_file
    measured = Times(start_up, cpu - start_up)
    text = log.read_text(errors="replace")
    return Ended(process.returncode, text, measured, signaled, wrote, orphans)


def complaint(command: Command, instant: Instant, ended: Ended, is_complete: bool) -> str:
    """Return what is wrong with how a process ended that got a signal; "" if nothing is.

    Args:
        command: The command.
        instant: How it was killed.
        ended: The process.
        is_complete: Whether its work was done nonetheless.
    """
    if ended.orphans:
        return f"a worker process was still there {_ORPHAN_SECONDS:g} s later"
    # A traceback before the command's own code runs is Python's.
    is_ours = ended.wrote is not None or "commands/main.py" in ended.output
    if "Traceback" in ended.output and is_ours:
        return "it printed a traceback"
    if ended.status == 0 and is_complete:
        return ""
    if ended.status == 0 and "stopped by a signal" not in ended.output:
        return "it succeeded without having finished"
    if instant.number == signal.SIGKILL:
        allowed = {-signal.SIGKILL}
    elif command.obeys_stops(ended.wrote, is_complete):
        allowed = {command.stop_status(instant.number)}
    else:
        # Before and after its work a process ends as any other: by the signal, or as Ctrl-C does.
        ends = {signal.SIGTERM: {-signal.SIGTERM}, signal.SIGINT: {130, -signal.SIGINT, 1}}
        allowed = ends[instant.number] | {command.stop_status(instant.number)}
    if ended.status not in allowed:
        return f"exit status {ended.status}, expected one of {sorted(allowed)}"
    return ""


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, of the workers that it has now, and of those it had."""
    proc = Path("/proc", str(pid))
    try:
        _, _, rest = (proc / "stat").read_text().rpartition(") ")
        workers = (proc / "task" / str(pid) / "children").read_text().split()
    except OSError:
        return 0.0
    ticks = sum(map(int, rest.split()[11:15]))  # utime, stime, cutime, cstime
    return ticks / _TICKS + sum(_cpu_seconds(int(worker)) for worker in workers)


def _send(process: subprocess.Popen[bytes], instant: Instant) -> bool:
    """Send the signal; return False if the process has just ended."""
    if process.poll() is not None:
        return False
    if instant.of_group:
        os.killpg(process.pid, instant.number)
    else:
        process.send_signal(instant.number)
    return True


def _environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPO),
        "PYTHONUNBUFFERED": "1",  # What was printed before a kill is in the log.
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        # Otherwise the folder's name is a part of the key, and no trial finds a program.
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        "IFT_JAX_CACHE": str(folder / "cache"),
    }


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the size and time of all files, and the names of all folders, but no locks."""
    found = {}
    stack: list[str] = [str(folder)]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            if entry.name.endswith(".lock"):
                continue
            try:
                if entry.is_dir():
                    stack.append(entry.path)
                    found[entry.path] = (0, 0)
                else:
                    stat = entry.stat()
                    found[entry.path] = (stat.st_size, stat.st_mtime_ns)
            except FileNotFoundError:
                continue
    return found


def _group_is_gone(group: int) -> bool:
    """Wait until no process of a group is left; return whether that came."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while _is_alive(group):
        if time.monotonic() > deadline:
            return False
        time.sleep(10 * _POLL)
    return True


def _is_alive(group: int) -> bool:
    """Whether a process of a group runs; one that has ended but was not waited for does not."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text().rpartition(") ")
        except OSError:
            continue
        state, _, of_group = rest.split()[:3]
        if int(of_group) == group and state not in "ZX":
            return True
    return False


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
