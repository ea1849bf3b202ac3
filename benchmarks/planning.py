"""Seconds and memory of planning a run: its order, packing and number of steps.

    python -m benchmarks.planning [--examples 5000000] [--epochs 3] [--tasks 1] [--encoder_decoder]

There are no stores, only lengths, which are all that planning reads: log-normal ones of mean 333
for rows of 2,048 tokens, or two of them (150 and 40) for an encoder-decoder. More than one task
have sizes by Zipf's law; with `--rates equal` small tasks are seen more often. Prints one JSON
object, in which `digest` names the plan, so that two versions of the code can be compared.
"""

import argparse
import hashlib
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import CpuTime, describe
from benchmarks.made_data import MAX_LENGTH, log_normal
from ift_jax.config.schema import DataConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture

DECODER_LENGTH = 512


class Lengths:
    """What planning reads of a store, or of its only variant, of n examples."""

    n_variants = 1
    holds_pairs = False

    def __init__(self, path: Path, n: int, seed: int, encoder_decoder: bool):
        self.path = path
        self.variants = [self]
        if encoder_decoder:
            self.encoder_lengths = log_normal(n, 150, MAX_LENGTH, seed).astype(np.int32)
            self.lengths = log_normal(n, 40, DECODER_LENGTH, seed + 1).astype(np.int32)
        else:
            self.encoder_lengths = np.zeros(n, np.int32)
            self.lengths = log_normal(n, 333, MAX_LENGTH, seed).astype(np.int32)
        self.trained_tokens = (self.lengths + 1) // 2

    def __len__(self) -> int:
        return len(self.lengths)


def mixture_of_lengths(
    folder: Path,
    n_examples: int,
    n_tasks: int,
    *,
    equal_rates: bool = False,
    encoder_decoder: bool = False,
) -> Mixture:
    """Make tasks of so many examples in all; their sizes are Zipf's."""
    shares = 1 / (np.arange(n_tasks) + 3)
    sizes = np.maximum(n_examples * shares / shares.sum(), 1).astype(int)
    names = [f"task{i}" for i in range(n_tasks)]
    stores: list[Any] = [
        Lengths(folder / name, size, 2 * i, encoder_decoder)
        for i, (name, size) in enumerate(zip(names, sizes.tolist(), strict=True))
    ]
    rates = np.ones(n_tasks) if equal_rates else sizes.astype(float)
    return Mixture(names, rates, stores, [[]] * n_tasks)


def main() -> None:
    """Plan once and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=5_000_000)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--rates", choices=["sizes", "equal"], default="sizes")
    parser.add_argument("--encoder_decoder", action="store_true")
    args = parser.parse_args()
    machine = describe()
    architecture = "encoder_decoder" if args.encoder_decoder else "decoder"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = mixture_of_lengths(
            folder,
            args.examples,
            args.tasks,
            equal_rates=args.rates == "equal",
            encoder_decoder=args.encoder_decoder,
        )
        data = DataConfig(
            max_length=MAX_LENGTH,
            inputs_length=MAX_LENGTH,
            targets_length=DECODER_LENGTH,
            store_dir=name,
        )
        before, wall, cpu = CpuTime.now(), time.perf_counter(), time.process_time()
        plan = BatchPlan(tasks, data, architecture, 32, 0, epochs=args.epochs)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        load = before.load_of_others(CpuTime.now())
        digest = hashlib.sha256()
        for file in sorted((folder / "plans").iterdir()):
            digest.update(file.read_bytes())
    report = {
        "machine": machine,
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "load_of_others": load,
        "examples": plan.n_examples,
        "steps": plan.n_steps,
        "fill": round(plan.fill, 5),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "digest": digest.hexdigest()[:16],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
