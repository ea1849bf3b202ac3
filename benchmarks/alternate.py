"""Compares the sides of a benchmark: each runs in several processes, in turn.

The same program differs by 20% and more from process to process at equal settings, and load on the
machine slows one side down more than another. So each side runs in several processes, the sides
alternate, and the reported ratio is that of the medians over processes. Each figure has the load of
other processes beside it: repeat a run in which it is above 0.3.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.machine import ON_CPU, TUNABLES, CpuTime, describe

OURS = "ift_jax"


class Results(NamedTuple):
    """What a benchmark found.

    Attributes:
        machine: What `benchmarks.machine` printed before.
        sides: The JSON object that each process of a side printed, with "load_of_others": how many
            processors other processes kept busy meanwhile.
    """

    machine: dict[str, Any]
    sides: dict[str, list[dict[str, Any]]]

    @property
    def peak_gflops(self) -> float:
        """The highest rate of a matrix product that any side reached."""
        peaks: dict[str, float] = self.machine["gflops_2048"]
        return max(peaks.values())


def run_in_turn(
    module: str, sides: Sequence[str], rounds: int, arguments: Sequence[str] = ()
) -> Results:
    """Run `python -m MODULE --side SIDE ...` for each side, `rounds` times; read the last lines."""
    results = Results(describe(), {side: [] for side in sides})
    for _ in range(rounds):
        for side in sides:
            environment = {**ON_CPU, **os.environ}
            if side.startswith(OURS):
                environment.setdefault("GLIBC_TUNABLES", TUNABLES)
            command = [sys.executable, "-m", module, "--side", side, *arguments]
            before = CpuTime.now()
            process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if process.returncode:
                raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
            result = json.loads(process.stdout.splitlines()[-1])
            result["load_of_others"] = before.load_of_others(CpuTime.now())
            results.sides[side].append(result)
            print(side, result, file=sys.stderr, flush=True)
    return results


def summarize(results: Results, figure: str, *, more_is_better: bool) -> dict[str, Any]:
    """Return the machine, the figure of each side and process, and by what factor ours is better.

    Args:
        results: See `run_in_turn`.
        figure: The name of the figure in a result.
        more_is_better: Whether a larger figure is better.
    """
    sides = {}
    for side, side_results in results.sides.items():
        figures = [result[figure] for result in side_results]
        sides[side] = {
            "median": statistics.median(figures),
            "processes": figures,
            "load_of_others": [result["load_of_others"] for result in side_results],
        }
    ours = next(side for side in results.sides if side.startswith(OURS))
    factors = {}
    for side in results.sides:
        if side != ours:
            ratio = sides[ours]["median"] / sides[side]["median"]
            factors[side] = round(ratio if more_is_better else 1 / ratio, 3)
    return {
        "machine": results.machine,
        "figure": figure,
        "sides": sides,
        f"{ours}_is_better_by": factors,
    }
