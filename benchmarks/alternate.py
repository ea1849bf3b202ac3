"""Compares the sides of a benchmark: each runs in several processes, in turn.

The same program differs by 20% and more from process to process at equal settings, and load on the
machine slows one side down more than another. So each side runs in several processes, the sides
alternate, and the reported ratio is that of the medians over processes.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

# What launch/local.sh sets for a run: huge pages that are kept between steps.
TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"
OURS = "ift_jax"

# The results of each side: one for each process.
Results = dict[str, list[dict[str, Any]]]


def run_in_turn(
    module: str, sides: Sequence[str], rounds: int, arguments: Sequence[str] = ()
) -> Results:
    """Run `python -m MODULE --side SIDE ...` for each side, `rounds` times.

    Returns:
        The JSON object in the last line that each process printed.
    """
    results: Results = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            environment = dict(os.environ)
            if side.startswith(OURS):
                environment.setdefault("GLIBC_TUNABLES", TUNABLES)
            command = [sys.executable, "-m", module, "--side", side, *arguments]
            process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if process.returncode:
                raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
            result = json.loads(process.stdout.splitlines()[-1])
            results[side].append(result)
            print(side, result, file=sys.stderr, flush=True)
    return results


def summarize(
    results: Mapping[str, list[dict[str, Any]]], figure: str, *, more_is_better: bool
) -> dict[str, Any]:
    """Return the figure of each side and process, and by what factor ours is better.

    Args:
        results: See `run_in_turn`.
        figure: The name of the figure in a result.
        more_is_better: Whether a larger figure is better.
    """
    sides = {}
    for side, side_results in results.items():
        figures = [result[figure] for result in side_results]
        sides[side] = {"median": statistics.median(figures), "processes": figures}
    ours = next(side for side in results if side.startswith(OURS))
    factors = {}
    for side in results:
        if side != ours:
            ratio = sides[ours]["median"] / sides[side]["median"]
            factors[side] = round(ratio if more_is_better else 1 / ratio, 3)
    return {"figure": figure, "sides": sides, f"{ours}_is_better_by": factors}
