"""What a figure depends on beside the code: the processor, its peak, and the load of others.

    python -m benchmarks.machine

Prints one JSON object: the processor; the widest vectors that it knows; GFLOP/s of a product of
float32 matrices (2,048 x 2,048), in torch and in JAX by the library that a train step uses; and
GB/s at which two threads read an array of 512 MiB. A benchmark calls it first (`describe`), and
measures the load of other processes beside each figure of its own.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

SIZE = 2048
REPEATS = 10
N_READ = 1 << 27  # Float32 numbers of the array that is read; no cache holds a part of it.
N_THREADS = 2
# No process looks for an accelerator: both sides of a comparison run on the CPU.
ON_CPU = {"JAX_PLATFORMS": "cpu"}
# What launch/local.sh sets for a run: huge pages that are kept between steps.
TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"


class CpuTime(NamedTuple):
    """Seconds so far, since any moment."""

    wall: float
    busy: float  # All processors and all processes together.
    own: float  # By this process and those of its children that have ended.

    @classmethod
    def now(cls) -> "CpuTime":
        """Read the clocks; Linux alone tells how busy the machine is."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
        return cls(
            time.perf_counter(),
            (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"),
            cpu_seconds(),
        )

    def load_of_others(self, later: "CpuTime") -> float:
        """How many processors others kept busy on average until `later`."""
        busy = (later.busy - self.busy) - (later.own - self.own)
        return round(max(0.0, busy) / (later.wall - self.wall), 2)


def cpu_seconds() -> float:
    """The CPU seconds of this process and of those of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def describe() -> dict[str, Any]:
    """Return what this module prints, from a process of its own, and show it."""
    environment = {**ON_CPU, "GLIBC_TUNABLES": TUNABLES, **os.environ}
    command = [sys.executable, "-m", "benchmarks.machine"]
    output = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    print(output.splitlines()[-1], file=sys.stderr, flush=True)
    description: dict[str, Any] = json.loads(output.splitlines()[-1])
    return description


def processor() -> dict[str, str | int]:
    """Name the processor, its cores, and its widest vectors."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {name.strip(): value.strip() for name, value in fields.items()}
    flags = names.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2") if name in flags), "other")
    return {
        "processor": names.get("model name", ""),
        "cores": len(os.sched_getaffinity(0)),
        "vectors": vectors,
    }


def best_seconds(call: Callable[[], Any]) -> float:
    """Return the time of the fastest of some calls, after one that does not count."""
    call()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def read_gb_per_second() -> float:
    """Return the rate at which threads find the largest number of an array, each of a part."""
    import numpy as np

    parts = np.split(np.ones(N_READ, np.float32), N_THREADS)
    with ThreadPoolExecutor(N_THREADS) as pool:
        seconds = best_seconds(lambda: list(pool.map(np.max, parts)))
    return round(sum(part.nbytes for part in parts) / seconds / 1e9, 1)


def product_gflops() -> dict[str, float]:
    """Return the rate of a product in torch and in JAX."""
    import jax
    import numpy as np
    import torch

    from ift_jax.sharding.product_library import train_options

    matrix = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    of_torch = torch.from_numpy(matrix)
    of_jax = jax.device_put(matrix)
    product = jax.jit(lambda a: a @ a, compiler_options=train_options())
    calls: dict[str, Callable[[], Any]] = {
        "torch": lambda: of_torch @ of_torch,
        "jax": lambda: product(of_jax).block_until_ready(),
    }
    return {side: round(2 * SIZE**3 / best_seconds(call) / 1e9, 1) for side, call in calls.items()}


def main() -> None:
    """Measure and print."""
    peaks = {"read_gb_per_second": read_gb_per_second(), "gflops_2048": product_gflops()}
    print(json.dumps(processor() | peaks))


if __name__ == "__main__":
    main()
