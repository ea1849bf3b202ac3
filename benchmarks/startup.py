"""Seconds from the command `ift train` to the end of the first step, in the quickstart's shape.

    python -m benchmarks.startup [--rounds 3]

`cold` has no compiled programs; `cached` is the same command again, in a new workdir, with JAX's
compilation cache of the time before. Both find their token stores and write the samples of step 0.
The start of Python and all imports count. Prints one JSON object, in which each figure has the load
of other processes meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import TUNABLES, CpuTime, describe

POLL_SECONDS = 0.02


def quickstart(folder: Path) -> list[str]:
    """Return the quickstart's config, with its token stores in a folder."""
    return ["--config", "configs/quickstart.py", f"--config.data.store_dir={folder / 'stores'}"]


def seconds_to_first_step(folder: Path, workdir: Path, config: Sequence[str]) -> float:
    """Run two steps; return the seconds until the record of the first one is there.

    Args:
        folder: Holds the compilation cache.
        workdir: The new workdir of the run.
        config: The flags that give the run's config and its data.
    """
    command = [
        sys.executable,
        "-m",
        "ift_jax.commands.main",
        "train",
        *config,
        "--workdir",
        str(workdir),
        f"--config.train.compile_cache={folder / 'cache'}",
        "--config.train.log_every=1",
        "--config.train.steps=2",
        "--config.train.epochs=0.0",
        "--config.evaluation.examples=0",
        "--config.train.eval_metrics_every=0",
    ]
    environment = {"GLIBC_TUNABLES": TUNABLES, **os.environ}
    metrics = workdir / "metrics.jsonl"
    log = workdir.with_suffix(".log")
    start = time.perf_counter()
    with open(log, "w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    seconds = None
    while process.poll() is None:
        if seconds is None and metrics.exists() and '"learning_rate"' in metrics.read_text():
            seconds = time.perf_counter() - start
        time.sleep(POLL_SECONDS)
    if process.returncode or seconds is None:
        raise SystemExit(f"exit code {process.returncode}:\n{log.read_text()}")
    return seconds


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    machine = describe()
    processes: dict[str, list[float]] = {"cold": [], "cached": []}
    loads: dict[str, list[float]] = {"cold": [], "cached": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = quickstart(folder)
        seconds_to_first_step(folder, folder / "prepares", config)  # Makes the token stores.
        for i in range(args.rounds):
            for file in (folder / "cache").rglob("*"):
                file.unlink()
            for kind in ("cold", "cached"):
                before = CpuTime.now()
                seconds = seconds_to_first_step(folder, folder / f"{kind}{i}", config)
                processes[kind].append(round(seconds, 2))
                loads[kind].append(before.load_of_others(CpuTime.now()))
    medians = {kind: statistics.median(seconds) for kind, seconds in processes.items()}
    found = {
        "machine": machine,
        "seconds_to_first_step": medians,
        "processes": processes,
        "load_of_others": loads,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
