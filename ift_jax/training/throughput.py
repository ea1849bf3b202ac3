"""How fast a run is: tokens per second, model FLOP utilization, time spent waiting for data."""

import timeit
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ift_jax.training.goodput import Goodput
from ift_jax.training.setup import Run


class _Reading(NamedTuple):
    """How long the run has trained at one moment."""

    seconds: float  # In steps, and waiting for their batches.
    seconds_waited: float  # For batches.


class Throughput:
    """Measures the speed between two log lines: of steps and waiting for their batches alone.

    Attributes:
        positions_per_step: Token positions in a global batch, padding included.
    """

    def __init__(self, run: Run, goodput: Goodput):
        """Start the first interval.

        Args:
            run: The run that is measured.
            goodput: Knows how long the run has trained.
        """
        train = run.config.train
        self.positions_per_step = train.batch_size * sum(run.plan.capacities)
        self._goodput = goodput
        self._dtype = run.config.model.dtype
        # FLOP/s of one device; 0 until it is measured.
        self._peak_flops = train.peak_tflops * 1e12
        flops_per_token = run.program.model.flops_per_token(
            run.train.sequence_lengths, run.train.trained_tokens, run.train.encoder_lengths
        )
        self._flops_per_token_and_device = flops_per_token / run.program.mesh.size
        self._first_reading: _Reading | None = None  # At the first log line.
        self._last_reading = self._reading()

    def read(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return the speed since the last reading and start the next interval.

        Args:
            record: The interval's "tokens" and "trained_tokens".

        Returns:
            "seconds"; "trained_tokens_per_second"; "tokens_per_second"; "mfu", the fraction of
            the devices' peak FLOP/s that the model's FLOPs take, None in the first interval,
            before the peak is measured; "data_wait_share", the fraction of the time spent waiting
            for batches.
        """
        last = self._last_reading
        now = self._reading()
        seconds = max(now.seconds - last.seconds, 1e-9)
        tokens_per_second = record["tokens"] / seconds
        mfu = None
        if self._first_reading is not None:
            mfu = self._flops_per_token_and_device * tokens_per_second / self._peak_flops
        else:
            self._first_reading = now
        self._last_reading = now
        return {
            "seconds": seconds,
            "trained_tokens_per_second": record["trained_tokens"] / seconds,
            "tokens_per_second": tokens_per_second,
            "mfu": mfu,
            "data_wait_share": (now.seconds_waited - last.seconds_waited) / seconds,
        }

    def measure_peak_once(self, running: Any) -> None:
        """Measure the device's peak after the first log line, if the config does not give it.

        It is not done earlier, so that the first step does not wait for it.

        Args:
            running: Arrays that the devices are computing; they are waited for first.
        """
        if self._peak_flops or self._first_reading is None:
            return
        jax.block_until_ready(running)
        with self._goodput.during("other"):
            self._peak_flops = measure_peak_flops(self._dtype)

    def _reading(self) -> _Reading:
        seconds = self._goodput.seconds()
        return _Reading(seconds["steps"] + seconds["waiting"], seconds["waiting"])

    def data_wait_share(self) -> float:
        """Return the fraction of the time after the first log line spent waiting for batches."""
        last = self._last_reading
        first = self._first_reading or last
        waited = last.seconds_waited - first.seconds_waited
        return waited / max(last.seconds - first.seconds, 1e-9)


def measure_peak_flops(dtype: str) -> float:
    """Measure the FLOP/s of a square matrix product on one device, the peak for MFU.

    It is the best of 4 products of 2048 x 2048 matrices on a CPU, or of 12 products of 8192 x 8192
    on an accelerator. On a CPU the process's host devices share the cores, so the result is the
    machine's peak divided by their number.

    Args:
        dtype: The dtype of the matrices, "float32" or "bfloat16".
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        size, n_runs, n_sharing = 2048, 4, jax.local_device_count()
    else:
        size, n_runs, n_sharing = 8192, 12, 1
    # The run's own mesh, which may be set, spans all devices.
    with jax.set_mesh(jax.sharding.Mesh([device], "device")):
        matrix = jnp.ones((size, size), dtype)
        product = jax.jit(lambda a: a @ a)
        product(matrix).block_until_ready()
        seconds = min(
            timeit.repeat(lambda: product(matrix).block_until_ready(), number=1, repeat=n_runs)
        )
    return 2 * size**3 / seconds / n_sharing
