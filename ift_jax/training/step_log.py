"""Log lines about steps, written one step late so that no device waits for the host."""

from typing import Any

import jax

from ift_jax.training.console import Console
from ift_jax.training.goodput import Goodput
from ift_jax.training.interval_metrics import interval_metrics
from ift_jax.training.metric_writer import MetricWriter
from ift_jax.training.setup import Run
from ift_jax.training.step import Metrics
from ift_jax.training.throughput import Throughput


class StepLog:
    """Remembers the metrics of a logged step and reports them later."""

    def __init__(
        self,
        run: Run,
        throughput: Throughput,
        goodput: Goodput,
        writer: MetricWriter | None,
        console: Console,
    ):
        """Remember nothing yet; without `writer` nothing is written to disk."""
        self._run = run
        self._throughput = throughput
        self._goodput = goodput
        self._writer = writer
        self._console = console
        self._remembered: Metrics | None = None

    def remember(self, metrics: Metrics) -> None:
        """Keep a step's metrics, which the devices may still be computing."""
        self._remembered = metrics

    def report(self) -> None:
        """Wait for the remembered metrics, if there are any, and write and print them."""
        if self._remembered is None:
            return
        sums: dict[str, Any] = jax.device_get(self._remembered)
        self._remembered = None
        record = interval_metrics(sums, self._run.train.tasks, self._throughput.positions_per_step)
        speed = self._throughput.read(record)
        record["time"] = speed | {"goodput": self._goodput.shares()}
        if self._writer:
            self._writer.write(record)
        self._console.progress(record)
