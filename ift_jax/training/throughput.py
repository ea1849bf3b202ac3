"""A run's numbers: what it writes of them (`metrics.jsonl`, TensorBoard), and how fast it is."""

import contextlib
import time
import timeit
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ift_jax.training.prefetch import Prefetcher
from ift_jax.training.setup import Run


class Clock:
    """Speed between two log lines, without the time that evaluation and previews take."""

    def __init__(self, run: Run, feed: Prefetcher):
        """Nothing is measured yet."""
        train, self._feed, self._dtype = run.config.train, feed, run.config.model.dtype
        self.slots = train.batch_size * sum(run.plan.capacities)
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
