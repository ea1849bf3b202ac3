"""Kill the commands at random instants, run them again, and compare what they leave.

  python -m tests.robustness.kills --kills 200
  python -m tests.robustness.kills --kills 20 --command train --seed 7 --jobs 2
  python -m tests.robustness.kills --trial train/12 --seed 7

A trial calls one command in a process of its own, with a signal at an instant of its work (SIGKILL,
SIGTERM, or Ctrl-C), until it is done; most signals come after the first file is written. In the end
all files must be those of a run that nobody killed: parameters and optimizer state to the bit,
metrics, samples, answers, stores. Anything else is printed, and the exit status is 1. The instants
of a trial, as shares of the uninterrupted run's CPU time, depend on (seed, command, trial) alone.
"""

import argparse
import collections
import concurrent.futures
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.robustness.killed_commands import Command
    from tests.robustness.killed_process import Times

_SHOWN = 1500  # Characters of a fault.
_SIGNALS = (Signals.SIGKILL, Signals.SIGTERM, Signals.SIGINT)


class Kill(NamedTuple):
    """A signal that reached a running command.

    Attributes:
        number: The signal.
        works: Whether the command had written its first file.
        phase: What it was doing.
        status: How it ended.
    """

    number: Signals
    works: bool
    phase: str
    status: int


class Trial(NamedTuple):
    """One command, called until it was done.

    Attributes:
        command: The command's name.
        index: The number of the trial.
        kills: The signals that it got.
        fault: What was wrong; "" if nothing was.
    """

    command: str
    index: int
    kills: tuple[Kill, ...]
    fault: str


class Kills:
    """Runs trials in a scratch folder, and counts the kills.

    Args:
        scratch: A folder with what the commands read.
        commands: The commands, in an order in which each finds the references that it reads.
        names: Those that are killed; the others are only references.
        seed: Decides the instants.
    """

    def __init__(
        self, scratch: Path, commands: Sequence[type["Command"]], names: Sequence[str], seed: int
    ) -> None:
        self._scratch = scratch
        self._seed = seed
        self._lock = threading.Lock()  # JAX compares in one thread at a time.
        self._commands: dict[str, Command] = {}
        self._times: dict[str, Times] = {}
        for make in commands:
            self._commands[make.name] = command = make(scratch)
            self._times[make.name] = self._run_reference(command)
        self._names = [name for name in self._commands if name in names]

    def _run_reference(self, command: "Command") -> "Times":
        """Run a command without a kill, twice: the first fills its cache of compiled programs."""
        from tests.robustness.killed_process import run

        command.compiled.mkdir(parents=True)
        for folder in (command.reference.with_name("first"), command.reference):
            command.give(folder, trial=1)
            ended = run(command, folder)
            assert ended.status == 0, ended.output
            assert command.is_complete(folder)
            shutil.copytree(folder / "compiled", command.compiled, dirs_exist_ok=True)
        command.check(command.reference.with_name("first"))
        return ended.times

    def describe(self) -> str:
        """Return how much CPU time the uninterrupted runs took, a line a command."""
        return "\n".join(
            f"{name}: {times.start_up:.1f} s of CPU until the first file, then {times.work:.1f} s"
            for name, times in self._times.items()
        )

    def schedule(self) -> Iterator[tuple[str, int]]:
        """Yield the trials without end, commands by turns according to their shares."""
        turns = sorted(
            ((turn + 0.5) / self._commands[name].share, name)
            for name in self._names
            for turn in range(self._commands[name].share)
        )
        counts = collections.Counter[str]()
        for _, name in itertools.cycle(turns):
            yield name, counts[name]
            counts[name] += 1

    def trial(self, name: str, index: int) -> Trial:
        """Call a command until it is done, and compare."""
        command = self._commands[name]
        folder = self._scratch / name / f"trial-{index}"
        command.give(folder, index)
        kills: list[Kill] = []
        try:
            self._call_until_done(command, folder, index, kills)
            with self._lock:
                command.check(folder)
        except Exception as error:  # Whatever it is, a file is not what it must be.
            what = f"{type(error).__name__}: {error}"[:_SHOWN]
            return Trial(name, index, tuple(kills), f"{what}\n    in {folder}")
        shutil.rmtree(folder)
        return Trial(name, index, tuple(kills), "")

    def _call_until_done(
        self, command: "Command", folder: Path, index: int, kills: list[Kill]
    ) -> None:
        from tests.robustness.killed_process import complaint, instants_of, run

        for instant in instants_of(random.Random(f"{self._seed}/{command.name}/{index}")):
            ended = run(command, folder, instant, self._times[command.name])
            is_complete = command.is_complete(folder)
            if not ended.signaled:
                assert ended.status == 0, f"status {ended.status}: {ended.output[-_SHOWN:]}"
            else:
                phase = command.phase(folder) if ended.wrote is not None else "start-up"
                kills.append(Kill(instant.number, ended.wrote is not None, phase, ended.status))
                if what := complaint(command, instant, ended, is_complete):
                    raise AssertionError(
                        f"{instant.number.name} in phase {phase!r}: {what}: "
                        f"{ended.output[-_SHOWN // 2 :]}"
                    )
            with self._lock:
                command.check_between(folder)
            if is_complete:
                return
        ended = run(command, folder)
        assert ended.status == 0, f"run again: status {ended.status}: {ended.output[-_SHOWN:]}"
        assert command.is_complete(folder), "run again: not complete"


def run_trials(kills: Kills, n_kills: int, jobs: int) -> Iterator[Trial]:
    """Yield finished trials until so many kills are done.

    Args:
        kills: The commands.
        n_kills: The number of kills.
        jobs: How many trials run at a time.
    """
    done = 0
    trials = kills.schedule()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(kills.trial, *next(trials)) for _ in range(jobs)}
        while running:
            finished, running = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in finished:
                trial = future.result()
                done += len(trial.kills)
                if done < n_kills:
                    running.add(pool.submit(kills.trial, *next(trials)))
                yield trial


def table(trials: Sequence[Trial]) -> str:
    """Return the counts of trials, kills by signal and by phase, and faults, by command."""
    names = list(dict.fromkeys(trial.command for trial in trials))
    rows = [("command", "trials", "kills", *(n.name for n in _SIGNALS), "in start-up", "faults")]
    for name in [*names, "all"]:
        of_name = [trial for trial in trials if name in (trial.command, "all")]
        kills = [kill for trial in of_name for kill in trial.kills]
        by_signal = collections.Counter(kill.number for kill in kills)
        n_start_up = sum(not kill.works for kill in kills)
        n_faults = sum(bool(trial.fault) for trial in of_name)
        counts = (len(of_name), len(kills), *(by_signal[n] for n in _SIGNALS), n_start_up, n_faults)
        rows.append((name, *map(str, counts)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    for name in names:
        of_name = [kill for t in trials if t.command == name for kill in t.kills]
        lines.append(f"{name}: {_counted(kill.phase for kill in of_name)}")
        lines.append(f"  ended: {_counted(f'{k.number.name} {k.status}' for k in of_name)}")
    return "\n".join(lines)


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in collections.Counter(names).most_common())


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.kills", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = ("prepare", "train", "export", "import", "generate", "eval")
    parser.add_argument("--kills", type=int, default=200, help="in all; default: 200")
    parser.add_argument("--command", action="append", choices=names, help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time; default: 1")
    parser.add_argument("--trial", action="append", help="only this one, such as train/12")
    args = parser.parse_args()
    chosen = [trial.partition("/")[::2] for trial in args.trial or ()]
    commands = [name for name, _ in chosen] or args.command or names

    scratch = Path(tempfile.mkdtemp(prefix="ift-kills."))
    os.environ["IFT_JAX_TESTS"] = str(scratch)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from tests.robustness import killed_commands

    # A shell's background job ignores Ctrl-C, and so would all processes that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    killed_commands.write_inputs(scratch)
    kills = Kills(scratch, killed_commands.with_references(commands), commands, args.seed)
    print(kills.describe(), flush=True)
    if chosen:
        running: Iterable[Trial] = (kills.trial(name, int(index)) for name, index in chosen)
    else:
        running = run_trials(kills, args.kills, args.jobs)
    trials = []
    for trial in running:
        trials.append(trial)
        done = "; ".join(f"{k.number.name} {k.phase}: {k.status}" for k in trial.kills)
        print(f"{trial.command}/{trial.index}: {done or 'not killed'}", flush=True)
        if trial.fault:
            print(f"  FAULT: {trial.fault}", flush=True)
    print(table(trials))
    print(f"{time.monotonic() - start:.0f} s")
    if not any(trial.fault for trial in trials):
        shutil.rmtree(scratch)
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
