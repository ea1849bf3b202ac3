"""What a run writes of its numbers: `metrics.jsonl` and TensorBoard events."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FILE = "metrics.jsonl"


def summarize(sums: Mapping[str, Any], tasks: Sequence[str], slots_a_step: int) -> dict[str, Any]:
    """One record from an interval's sums: every mean is a sum over a sum, divided once.

    Args:
        sums: host values of the step's metrics (see `training.step`).
        tasks: names of the mixture's tasks.
        slots_a_step: token places in a global batch, padding included.
    """
    steps, weight = max(float(sums["steps"]), 1.0), max(float(sums["weight"]), 1e-30)
    task_weight = np.asarray(sums["task_weight"])
    task_nll = np.asarray(sums["task_nll"]) / np.maximum(task_weight, 1e-30)
    return {
        "step": int(sums["step"]),
        "loss": float(sums["loss"]) / steps,
        "nll": float(sums["nll"]) / weight,
        "z_loss": float(sums["z_loss"]) / weight,
        "accuracy": float(sums["correct"]) / weight,
        "grad_norm": float(sums["grad_norm"]),
        "learning_rate": float(sums["learning_rate"]),
        "trained_tokens": int(sums["trained"]),
        "tokens": int(sums["tokens"]),
        "fill": float(sums["tokens"]) / (steps * slots_a_step),
        "skipped": int(sums["skipped"]),
        "task_nll": {
            name: float(task_nll[i]) for i, name in enumerate(tasks) if task_weight[i] > 0
        },
        "task_tokens": {
            name: float(task_weight[i]) for i, name in enumerate(tasks) if task_weight[i] > 0
        },
    }


class MetricWriter:
    """Appends records to `metrics.jsonl` and scalars to TensorBoard's event files.

    Opened at a step, it removes the lines of later steps: they belong to work that a killed
    run did after its last checkpoint, and will be written again.
    """

    def __init__(self, workdir: str, step: int):
        """Opens the files to go on after `step` (0: a new run)."""
        from tensorboardX import SummaryWriter  # Imported late: commands that only read skip it.

        path = os.path.join(workdir, FILE)
        kept = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                # A killed process may leave half a line at the end: it is of a later step too.
                lines = [line for line in file if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.writelines(kept if step else [])
        os.replace(path + ".new", path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held for the run.
        self._events = SummaryWriter(
            os.path.join(workdir, "tensorboard"), purge_step=step + 1 if step else None
        )

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record; nested values go to TensorBoard as `outer/inner`."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in _flatten(record):
            if name != "step":
                self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()


def _flatten(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat += _flatten(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            flat.append((prefix + name, float(value)))
    return flat


def measure_peak(dtype: str) -> float:
    """FLOP/s of a square matrix product on one device: the peak that MFU is measured against.

    The best of several runs of 2048^3 (CPU) or 8192^3 (accelerator) in `dtype`; on a CPU all of
    the process's host devices share the cores, so it is the machine's, divided by them.
    """
    device = jax.local_devices()[0]
    size = 2048 if device.platform == "cpu" else 8192
    a = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    share = jax.local_device_count() if device.platform == "cpu" else 1
    return 2 * size**3 / best / share
