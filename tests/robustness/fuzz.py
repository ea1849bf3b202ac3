"""Read thousands of spoiled inputs, and count what becomes of them.

  python -m tests.robustness.fuzz --inputs 10000
  python -m tests.robustness.fuzz --inputs 2000 --group gguf --group safetensors --seed 7

Each input is a good file with a few faults. It must be refused in one line that names the file, or
be accepted with a value that a reference implementation agrees with. Anything else is printed, and
the exit status is 1. Input i of a group depends on (seed, group, i) alone.
"""

import argparse
import collections
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.robustness.group import group_names
from tests.robustness.outcomes import GOOD, KINDS, Outcome, serve

TIME_LIMIT = 20.0  # Seconds of CPU time that an input may take.
_STUCK = 120.0  # Seconds without an answer; a busy machine makes CPU time of 20 s as long.
_START_LIMIT = 300.0  # Seconds until the first answer of a process, which imports everything.


class Result(NamedTuple):
    """An input and what became of it."""

    group: str
    index: int
    outcome: Outcome


class _Reader:
    """A process that reads inputs; a new one takes over when it is stuck or dead."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._warm: set[str] = set()
        self._start()

    def _start(self) -> None:
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._warm.clear()

    def judge(self, group: str, seed: str) -> Outcome:
        """Return what becomes of an input."""
        limit = _STUCK if group in self._warm else _START_LIMIT
        try:
            self._connection.send((group, seed))
            if not self._connection.poll(limit):
                outcome = Outcome("slow", "", f"no answer in {limit:g} s", limit)
            else:
                outcome = self._connection.recv()
                self._warm.add(group)
                if outcome.seconds > TIME_LIMIT:
                    outcome = outcome._replace(kind="slow")
                return outcome
        except (EOFError, ConnectionError):
            self._process.join(5)
            outcome = Outcome("killed", "", f"exit status {self._process.exitcode}", 0.0)
        self.close()
        self._start()
        return outcome

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def fuzz(groups: Sequence[str], inputs: int, seed: int = 0) -> Iterator[Result]:
    """Yield what becomes of each input.

    Args:
        groups: The groups, whose inputs come by turns.
        inputs: The number of inputs of all groups together.
        seed: Decides the inputs.
    """
    reader = _Reader()
    try:
        for number in range(inputs):
            index, turn = divmod(number, len(groups))
            group = groups[turn]
            yield Result(group, index, reader.judge(group, f"{seed}/{group}/{index}"))
    finally:
        reader.close()


def table(results: Sequence[Result]) -> str:
    """Return the counts of all kinds of outcomes, a line a group."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for result in results:
        counts[result.group][result.outcome.kind] += 1
    rows = [("group", "inputs", *KINDS)]
    for group in sorted(counts):
        of_kind = counts[group]
        rows.append((group, str(of_kind.total()), *(str(of_kind[kind]) for kind in KINDS)))
    sums = [sum(counts[group][kind] for group in counts) for kind in KINDS]
    rows.append(("all", str(sum(sums)), *map(str, sums)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness.fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--inputs", type=int, default=1000, help="of all groups; default: 1000")
    parser.add_argument("--group", action="append", choices=group_names(), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--show", type=int, default=20, help="bad outcomes to print; default: 20")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    results = []
    n_shown = 0
    for result in fuzz(args.group or group_names(), args.inputs, args.seed):
        results.append(result)
        outcome = result.outcome
        if outcome.kind not in GOOD and n_shown < args.show:
            n_shown += 1
            # A lone surrogate cannot be printed.
            lines = f"{outcome.kind} ({outcome.change})\n    {outcome.detail.strip()}\n"
            printable = lines.encode("ascii", "backslashreplace").decode()
            print(f"{result.group} {result.index}: {printable}", flush=True)
    print(table(results))
    return int(any(result.outcome.kind not in GOOD for result in results))


if __name__ == "__main__":
    sys.exit(main())
