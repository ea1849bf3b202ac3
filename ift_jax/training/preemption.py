"""Signals that ask a run to stop, and the processes' agreement to do so at the same step."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM or the first Ctrl-C sets; a second Ctrl-C interrupts.

    Signals are only handled on the main thread, because Python delivers them nowhere else.
    """
    received = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if number == signal.SIGINT and received.is_set():
            raise KeyboardInterrupt
        received.set()

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous_handlers = {
        number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


class StopAgreement:
    """Tells all processes of a run to stop at the same step once any of them got a signal.

    With several processes, each call starts a vote on the devices and returns the result of the
    vote that the call before started. By then the devices have the next step to work on, so
    nothing waits for the vote.
    """

    def __init__(self, received: threading.Event, mesh: Mesh):
        """Prepare the vote.

        Args:
            received: Set once this process was asked to stop.
            mesh: The run's mesh; each of its devices has one vote.
        """
        self._received = received
        self._previous_vote: jax.Array | None = None
        self._votes_sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def requested(self) -> bool:
        """Whether to stop after this step; every process must call this once per step."""
        if jax.process_count() == 1:
            return self._received.is_set()
        local_votes = np.full(jax.local_device_count(), self._received.is_set())
        votes = jax.make_array_from_process_local_data(self._votes_sharding, local_votes)
        previous = self._previous_vote
        self._previous_vote = self._any(votes)
        return previous is not None and bool(previous)
