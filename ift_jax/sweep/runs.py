"""Runs the settings of a sweep one after another, each in its folder; done ones are skipped.

Each run is a process of its own, so that one that runs out of memory or crashes takes no other with
it. What it prints goes to `train.log` beside its files.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ift_jax.checkpoint.run_description import RunRecord
from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes, json_digest, write_atomically
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.stop_signals import StopSignals
from ift_jax.sweep.settings import Setting

STATE_FILE = "sweep_runs.json"
_LOGS = "logs"
_POLL = 0.2  # Seconds between two looks at a process.
_LAST_BYTES = 20_000  # The end of a log is read; its last lines say why a run failed.

DONE, SKIPPED, FAILED, STOPPED = "done", "skipped", "failed", "stopped"


class Planned(NamedTuple):
    """A run that is to be done.

    Attributes:
        setting: What it sets.
        workdir: Its folder.
        words: The words of its `ift train`, without `--workdir`.
        asks: What tells it from another run in the same folder, as a JSON value.
    """

    setting: Setting
    workdir: str
    words: list[str]
    asks: Any


class Outcome(NamedTuple):
    """What became of a run.

    Attributes:
        run: The run.
        status: One of DONE, SKIPPED (done before), FAILED, STOPPED (by a signal).
        message: Why it failed, as one line.
    """

    run: Planned
    status: str
    message: str = ""

    @property
    def is_done(self) -> bool:
        return self.status in (DONE, SKIPPED)


class Ended(NamedTuple):
    """How the process of a run ended: its exit status, and the line that says why it failed."""

    status: int
    message: str


Launch = Callable[[Planned, str, StopSignals], Ended]


class DoneRuns:
    """Which runs of a sweep are done, kept in a file of its folder."""

    def __init__(self, folder: str):
        """Reads what earlier calls have done.

        Raises:
            UserError: The file is not what was written.
        """
        self._path = os.path.join(folder, STATE_FILE)
        self._asked: dict[str, str] = {}
        if os.path.exists(self._path):
            values = read_json_object(self._path)
            if not all(isinstance(value, str) for value in values.values()):
                raise UserError(f"{self._path}: is not what ift_jax wrote; delete it")
            self._asked = values

    def __contains__(self, run: Planned) -> bool:
        known = self._asked.get(run.setting.folder) == json_digest(run.asks)
        return known and RunRecord.read(run.workdir).finished_at is not None

    def add(self, run: Planned) -> None:
        """Note that a run is done."""
        self._asked[run.setting.folder] = json_digest(run.asks)
        write_atomically(Path(self._path), json_bytes(self._asked))


def run_all(
    folder: str,
    runs: Sequence[Planned],
    launch: Launch,
    log: Callable[[str], None],
    signals: StopSignals,
) -> list[Outcome]:
    """Do every run that is not done; one that fails is one line, and the others go on.

    Args:
        folder: The sweep's folder.
        runs: The runs, in their order.
        launch: Starts a run, given the file of its output, and waits for its end.
        log: Called with a line for each run.
        signals: A signal stops the current run, which saves, and starts no other.

    Returns:
        What became of each run; of a stopped sweep, of those that it came to.
    """
    done = DoneRuns(folder)
    outcomes: list[Outcome] = []
    for number, run in enumerate(runs, 1):
        head = f"[{number}/{len(runs)}] {run.setting.folder}"
        if run in done:
            log(f"{head}: done before")
            outcomes.append(Outcome(run, SKIPPED))
            continue
        if signals.received():
            break
        verb = "resumes" if os.path.isdir(run.workdir) else "starts"
        log(f"{head}: {verb}")
        log_file = os.path.join(folder, _LOGS, f"{run.setting.folder.replace(os.sep, '_')}.log")
        os.makedirs(os.path.dirname(log_file), exist_ok=True)
        began = time.perf_counter()
        ended = launch(run, log_file, signals)
        seconds = time.perf_counter() - began
        finished = RunRecord.read(run.workdir).finished_at is not None
        if ended.status == 0 and finished:
            done.add(run)
            outcomes.append(Outcome(run, DONE))
            log(f"{head}: done in {seconds:.0f} s")
        elif signals.received():
            outcomes.append(Outcome(run, STOPPED))
            log(f"{head}: stopped by a signal; the same command resumes it")
            break
        else:
            outcomes.append(Outcome(run, FAILED, ended.message))
            log(f"{head}: failed: {ended.message} ({log_file})")
    return outcomes


def train_process(run: Planned, log_file: str, signals: StopSignals) -> Ended:
    """Train in another process; a signal that stops the sweep is handed on, so that it saves."""
    words = [sys.executable, "-m", "ift_jax.commands.main", "train", *run.words]
    with open(log_file, "ab") as output:
        # A session of its own: Ctrl-C in the terminal reaches it once, through us.
        process = subprocess.Popen(
            [*words, "--workdir", run.workdir],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        was_told = False
        try:
            while process.poll() is None:
                if signals.received() and not was_told:
                    process.send_signal(signal.SIGTERM)
                    was_told = True
                time.sleep(_POLL)
        finally:
            if process.poll() is None:  # A second Ctrl-C.
                process.kill()
                process.wait()
    status = process.returncode
    return Ended(status, _why(status, log_file))


def _why(status: int, log_file: str) -> str:
    """Return why a process failed: the line that it ended with."""
    if status < 0:
        return f"ended by signal {-status} ({signal.Signals(-status).name})"
    with open(log_file, "rb") as file:
        file.seek(max(os.path.getsize(log_file) - _LAST_BYTES, 0))
        lines = file.read().decode(errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in told if line.startswith("error: ")]
    return (errors or told or [f"exit status {status}"])[-1]
