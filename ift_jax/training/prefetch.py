"""Batches made ahead of the step, on a thread."""

import collections
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Prefetcher:
    """Yields `make(step)` for each step in order, made at most `depth` batches ahead.

    The thread holds no state that matters: a batch is a function of its step alone. `waited`:
    seconds that the caller has waited for a batch in all.
    """

    def __init__(self, make: Callable[[int], Any], steps: range, depth: int = 3):
        """Starts the thread."""
        self.waited = 0.0
        self._pool = ThreadPoolExecutor(1)
        self._submit = lambda step: self._pool.submit(make, step)
        self._ahead = collections.deque(map(self._submit, steps[:depth]))
        self._later = iter(steps[depth:])

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches; raises here what went wrong on the thread."""
        while self._ahead:
            start = time.perf_counter()
            batch = self._ahead.popleft().result()
            self.waited += time.perf_counter() - start
            if (step := next(self._later, None)) is not None:
                self._ahead.append(self._submit(step))
            yield batch

    def close(self) -> None:
        """Stops the thread."""
        self._pool.shutdown(cancel_futures=True)
