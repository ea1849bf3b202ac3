"""A run's numbers: what it writes of them (`metrics.jsonl`, TensorBoard), and how fast it is."""

import contextlib
import json
import os
import sys
import time
import timeit
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.data.store import write_atomically
from ift_jax.training.feed import Feed
from ift_jax.training.setup import Run


def summarize(sums: Mapping[str, Any], tasks: Sequence[str], slots_a_step: int) -> dict[str, Any]:
    """One record from an interval's sums: every mean is a sum over a sum, divided once.

    `sums` are host values of the step's metrics (see `training.step`), `slots_a_step` the token
    places in a global batch, padding included.
    """
    steps, weight = max(float(sums["steps"]), 1.0), max(float(sums["weight"]), 1e-30)
    task_nll, task_weight = np.asarray(sums["task_nll"]), np.asarray(sums["task_weight"])
    trained = [(name, i) for i, name in enumerate(tasks) if task_weight[i] > 0]
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
        "task_nll": {name: float(task_nll[i] / task_weight[i]) for name, i in trained},
        "task_tokens": {name: float(task_weight[i]) for name, i in trained},
    }


def drop_later(path: str, step: int) -> None:
    """Removes the lines of later steps from a JSON-lines file (step 0: all lines).

    They belong to work that a killed run did after its last checkpoint, and will be written
    again; so does half a line at the end.
    """
    if os.path.exists(path):
        with open(path, "rb") as file:
            lines = [line for line in file if line.endswith(b"\n")]
        kept = [line for line in lines if step and json.loads(line)["step"] <= step]
        write_atomically(Path(path), b"".join(kept))


class MetricWriter:
    """Appends records to `metrics.jsonl` and scalars to TensorBoard's event files."""

    def __init__(self, workdir: str, step: int):
        """Opens the files to go on after `step` (0: a new run)."""
        with _without("torch", "boto3", "google.cloud.storage"):
            from tensorboardX import SummaryWriter  # Late: commands that only read skip it.

        path = os.path.join(workdir, "metrics.jsonl")
        drop_later(path, step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held for the run.
        self._events = SummaryWriter(
            os.path.join(workdir, "tensorboard"), purge_step=step + 1 if step else None
        )

    def write(self, record: dict[str, Any]) -> None:
        """Writes one record; nested values go to TensorBoard as `outer/inner`."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for path, value in jax.tree_util.tree_leaves_with_path(record):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if name != "step":
                self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()


@contextlib.contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Has tensorboardX not import these, where they are: seconds, for nothing it does here."""
    hidden = {name: None for name in modules if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


class Clock:
    """Speed between two log lines, without the time that evaluation and previews take."""

    def __init__(self, run: Run, feed: Feed):
        """Nothing is measured yet."""
        train, self._feed, self._dtype = run.config.train, feed, run.config.model.dtype
        self.slots = train.batch_rows * sum(run.plan.capacities)
        self._peak = train.peak_tflops * 1e12  # 0: to be measured.
        flops = run.model.flops_per_token(
            run.train.lengths, run.train.trained_tokens, run.train.encoder_lengths
        )
        self._flops_a_token = flops / run.mesh.size  # Of each device.
        # When a log line was written, and for how long the loop had waited for data by then.
        self._first: tuple[float, float] | None = None
        self._last, self._paused = (time.perf_counter(), 0.0), 0.0

    def read(self, record: dict[str, Any]) -> dict[str, Any]:
        """Speeds since the last reading; the first interval holds the compilation: no MFU."""
        (before, waited), now = self._last, (time.perf_counter(), self._feed.waited)
        seconds = max(now[0] - before - self._paused, 1e-9)
        speed = record["tokens"] / seconds
        mfu = self._flops_a_token * speed / self._peak if self._first else None
        self._first, self._last, self._paused = self._first or now, now, 0.0
        return {
            "seconds": seconds,
            "trained_tokens_per_second": record["trained_tokens"] / seconds,
            "tokens_per_second": speed,
            "mfu": mfu,
            "data_wait_share": (now[1] - waited) / seconds,
        }

    def find_peak(self, running: Any) -> None:
        """Measures the device's peak, if the config does not give it, once a line is written.

        No sooner: no one waits for it before the first step. `running`: what the device computes.
        """
        if not self._peak and self._first:
            jax.block_until_ready(running)
            with self.paused():
                self._peak = measure_peak(self._dtype)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count what is done meanwhile."""
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def wait_share(self) -> float:
        """Share of the time after the first log line in which the loop waited for a batch."""
        (end, waited), (begin, before) = self._last, self._first or self._last
        return (waited - before) / max(end - begin, 1e-9)


def measure_peak(dtype: str) -> float:
    """FLOP/s of a square matrix product on one device: the peak that MFU is measured against.

    The best of 4 runs of 2048^3 (CPU) or 12 of 8192^3 (accelerator) in `dtype`; on a CPU all of
    the process's host devices share the cores, so it is the machine's, divided by them.
    """
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    size, runs, share = (2048, 4, jax.local_device_count()) if on_cpu else (8192, 12, 1)
    with jax.set_mesh(jax.sharding.Mesh([device], "device")):  # The run's own has all devices.
        a = jnp.ones((size, size), dtype)
        product = jax.jit(lambda a: a @ a)
        product(a).block_until_ready()
        best = min(timeit.repeat(lambda: product(a).block_until_ready(), number=1, repeat=runs))
    return 2 * size**3 / best / share
