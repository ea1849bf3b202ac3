"""The harness of random kills finds what a kill spoils, and finds nothing where nothing is."""

import random
import signal
import sys

import pytest

from tests.robustness import kills, same_files
from tests.robustness.killed_commands import Command
from tests.robustness.killed_process import Ended, Instant, Times, complaint, instants_of

N_LINES = 40
LAST_LINE = f"line {N_LINES - 1} is whole\n"
# Writes lines one by one, each in two halves, and continues a file that it finds. All of its work
# lies between the halves, so a kill during the work leaves half of a line wherever it comes.
WRITER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
path, n_lines, mends = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "mends"
lines = open(path).readlines() if os.path.exists(path) else []
if mends:
    lines = [line for line in lines if line.endswith("\\n")]
with open(path, "w") as file:
    file.writelines(lines)
    for i in range(len(lines), n_lines):
        file.write(f"line {i} is")
        file.flush()
        sum(range(500_000))
        file.write(" whole\\n")
        file.flush()
"""


class Mending(Command):
    """A stand-in for a command, which mends what a kill left."""

    name = "mending"
    share = 1

    def words(self, folder):
        return [sys.executable, "-c", WRITER, *self.arguments(folder)]

    def arguments(self, folder):
        return [str(folder / "out" / "lines.txt"), str(N_LINES), "mends"]

    def is_complete(self, folder):
        path = folder / "out" / "lines.txt"
        return path.exists() and path.read_text().endswith(LAST_LINE)

    def check_between(self, folder):
        pass

    def check(self, folder):
        same_files.assert_same_names(folder / "out", self.reference / "out")
        same_files.assert_same_files(folder, self.reference, ["out/lines.txt"])

    def phase(self, folder):
        return "writing"

    def stop_status(self, number):
        return -number


class Careless(Mending):
    """Takes half of a line for a whole one."""

    name = "careless"

    def arguments(self, folder):
        return [*super().arguments(folder)[:-1], "does not"]


@pytest.mark.parametrize("command", [Mending, Careless])
def test_a_command_is_killed_until_it_is_done_and_compared(command, tmp_path):
    made = kills.Kills(tmp_path, [command], [command.name], seed=3)
    trials = list(kills.run_trials(made, n_kills=10, jobs=2))
    n_kills = sum(len(trial.kills) for trial in trials)
    assert n_kills >= 10
    faults = [trial.fault for trial in trials if trial.fault]
    if command is Mending:
        assert not faults
    else:
        assert any("lines.txt: " in fault and "differs from byte" in fault for fault in faults)
    total = kills.table(trials).splitlines()[2].split()
    assert total[:3] == ["all", str(len(trials)), str(n_kills)]
    assert total[-1] == str(len(faults))


def test_kills_depend_on_the_seed_and_most_come_during_work():
    def instants(seed):
        return [i for trial in range(200) for i in instants_of(random.Random(f"{seed}/{trial}"))]

    assert instants(1) == instants(1) != instants(2)
    drawn = instants(1)
    assert 0.75 < sum(instant.works for instant in drawn) / len(drawn) < 0.95
    assert {instant.number for instant in drawn} == set(kills._SIGNALS)
    assert all(instant.of_group for instant in drawn if instant.number == signal.SIGINT)


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("number", "status", "output", "orphans", "is_complete", "expected"),
    [
        (KILL, -9, "", False, False, ""),
        (KILL, -9, "", True, False, "worker process"),
        (KILL, 0, "", False, False, "without having finished"),
        (KILL, 0, "", False, True, ""),
        (TERM, -15, "", False, False, ""),
        (TERM, 2, "", False, False, "exit status 2"),
        (TERM, 0, "stopped by a signal", False, False, "exit status 0"),
        (INT, 130, "interrupted", False, False, ""),
        (INT, -2, "Traceback ... runpy", False, False, ""),
        (INT, 1, 'Traceback ... File "ift_jax/commands/main.py"', False, False, "traceback"),
    ],
)
def test_the_end_of_a_killed_process_is_judged(
    number, status, output, orphans, is_complete, expected, tmp_path
):
    ended = Ended(status, output, Times(1, 1), True, None, orphans)
    said = complaint(Mending(tmp_path), Instant(True, 0.5, number, False), ended, is_complete)
    assert (expected in said) if expected else not said


def test_a_leftover_a_missing_file_and_another_byte_are_found(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "file").write_text(f"in {folder} 1")
    same_files.assert_same_names(ours, theirs)
    same_files.assert_same_files(ours, theirs, same_files.files_of(theirs))
    (ours / "sub" / "file").write_text(f"in {ours} 2")
    with pytest.raises(AssertionError, match=r"sub/file: .* differs from byte 10"):
        same_files.assert_same_files(ours, theirs, ["sub/file"])
    (ours / ".sub.tmp").mkdir()
    with pytest.raises(AssertionError, match=r"surplus folders \['.sub.tmp'\]"):
        same_files.assert_same_names(ours, theirs)
    (ours / "sub" / "file").rename(ours / "file")
    with pytest.raises(AssertionError, match=r"missing \['sub/file'\], surplus \['file'\]"):
        same_files.assert_same_names(ours, theirs)
