"""How many tokens a device makes between two looks for a request to stop."""

import time

import jax

_BLOCK_SECONDS = 0.5  # A single process looks for a request to stop at least this often.


class Pace:
    """The number of tokens in a block: no more than a slow device makes in `_BLOCK_SECONDS`.

    Several processes must ask equally often whether to stop, so for them it never changes.
    """

    def __init__(self, block: int, *, is_fixed: bool):
        self.block = block
        self._most = block
        self._is_fixed = is_fixed or jax.process_count() > 1
        self._n_made = 0
        self._time = time.perf_counter()

    def read(self, n_made: int) -> None:
        """Take the time of the block after which there are `n_made` tokens."""
        now = time.perf_counter()
        per_token = (now - self._time) / (n_made - self._n_made)
        self._time = now
        self._n_made = n_made
        if not self._is_fixed:
            self.block = max(1, min(self._most, int(_BLOCK_SECONDS / per_token)))
