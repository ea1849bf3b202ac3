"""Runs the sides of a comparison in processes of their own, in turn, and takes medians.

The same program differs by 20% and more from process to process at equal settings, and load on
the machine hurts one side more than another: so each side gets several processes, interleaved,
and what is reported is the ratio of the medians of processes.
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


def run_in_turn(
    module: str, sides: Sequence[str], rounds: int, arguments: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """What `python -m module --side SIDE ...` printed as its last line, for each side and round."""
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            environment = dict(os.environ)
            if side.startswith(OURS):
                environment.setdefault("GLIBC_TUNABLES", TUNABLES)
            command = [sys.executable, "-m", module, "--side", side, *arguments]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
            results[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(side, results[side][-1], file=sys.stderr, flush=True)
    return results


def summary(
    results: Mapping[str, list[dict[str, Any]]], figure: str, *, more_is_better: bool
) -> dict[str, Any]:
    """Each side's figures and their median, and how many times better ours is than each other."""
    medians = {
        side: statistics.median(result[figure] for result in of_side)
        for side, of_side in results.items()
    }
    sides = {
        side: {"median": medians[side], "processes": [result[figure] for result in of_side]}
        for side, of_side in results.items()
    }
    ours = next(side for side in results if side.startswith(OURS))
    times = {
        side: round(medians[ours] / median if more_is_better else median / medians[ours], 3)
        for side, median in medians.items()
        if side != ours
    }
    return {"figure": figure, "sides": sides, f"{ours}_is_better_by": times}
