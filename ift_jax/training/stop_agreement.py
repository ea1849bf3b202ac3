"""The agreement of a run's processes on when to stop."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ift_jax.io.stop_signals import StopSignals


class StopAgreement:
    """Tells all processes of a run to stop at the same moment once any of them got a signal.

    With several processes, each call starts a vote on the devices and returns the result of the
    vote that the call before started. By then the devices have the next step to work on, so
    nothing waits for the vote.
    """

    def __init__(self, signals: StopSignals, mesh: Mesh):
        """Prepare the vote.

        Args:
            signals: Knows whether this process was asked to stop.
            mesh: The run's mesh; each of its devices has one vote.
        """
        self._signals = signals
        self._is_agreed = False
        self._previous_vote: jax.Array | None = None
        self._votes_sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def requested(self) -> bool:
        """Whether to stop now; every process must call this equally often."""
        if jax.process_count() == 1:
            return self._signals.received()
        if not self._is_agreed:
            local_votes = np.full(jax.local_device_count(), self._signals.received())
            votes = jax.make_array_from_process_local_data(self._votes_sharding, local_votes)
            previous = self._previous_vote
            self._previous_vote = self._any(votes)
            self._is_agreed = previous is not None and bool(previous)
        return self._is_agreed
