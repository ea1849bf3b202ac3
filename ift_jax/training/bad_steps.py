"""Ends a run whose loss or gradient is not finite for too long."""

import collections

import jax

from ift_jax.errors import UserError

DELAY = 2  # Steps. The devices always have a next step to work on, so none waits for the host.


class BadSteps:
    """Looks at how many steps in a row were not finite, after every step but a little later."""

    def __init__(self, max_bad_steps: int):
        """Take `train.max_bad_steps`."""
        self._max_bad_steps = max_bad_steps
        self._bad_streak = 0  # As last looked at.
        self._pending: collections.deque[tuple[int, jax.Array]] = collections.deque()

    def watch(self, step: int, bad_streak: jax.Array) -> None:
        """Take note of a step that the devices may still be computing; look at an earlier one.

        Args:
            step: The number of steps done.
            bad_streak: The counter of that name in the step's metrics; int32.

        Raises:
            UserError: There were `max_bad_steps` in a row.
        """
        bad_streak.copy_to_host_async()
        self._pending.append((step, bad_streak))
        if len(self._pending) > DELAY:
            self._look_at_oldest()

    def wait(self) -> int:
        """Wait for all steps; return how many of the last ones were not finite.

        Raises:
            UserError: There were `max_bad_steps` in a row.
        """
        while self._pending:
            self._look_at_oldest()
        return self._bad_streak

    def _look_at_oldest(self) -> None:
        """Wait for the oldest step that was not looked at."""
        step, bad_streak = self._pending.popleft()
        self._bad_streak = int(bad_streak)
        if self._bad_streak >= self._max_bad_steps:
            raise UserError(
                f"step {step}: {self._bad_streak} steps in a row had a loss or gradient that is "
                "not finite; lower the learning rate or look at the data"
            )
