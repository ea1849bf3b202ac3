"""Signals that ask a run to stop, agreed between processes."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class _Agreement:
    """Whether any process was asked to stop: the same answer at the same step on all of them.

    With several processes each call asks, and answers what was asked one call before: by then the
    devices have the next step to do, so nothing waits.
    """

    def __init__(self, stop: threading.Event, mesh: Mesh):
        self._stop, self._before = stop, None
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __call__(self) -> bool:
        if jax.process_count() == 1:
            return self._stop.is_set()
        asked = np.full(jax.local_device_count(), self._stop.is_set())
        votes = jax.make_array_from_process_local_data(self._sharding, asked)
        before, self._before = self._before, self._any(votes)
        return before is not None and bool(before)


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and the first Ctrl-C set; the second Ctrl-C interrupts."""
    event = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGINT and event.is_set():
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():  # Python hears none elsewhere.
        yield event
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
