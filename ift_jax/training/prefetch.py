"""Batches built ahead of the step, on a thread."""

import collections
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetcher:
    """Iterates over `make(step)` for each step in order, built at most `depth` batches ahead.

    The thread holds no state that matters, because a batch is a function of its step alone.

    Attributes:
        seconds_waited: How long the caller has waited for batches so far.
    """

    def __init__(self, make: Callable[[int], Any], steps: range, depth: int = 3):
        """Start the thread on the first batches.

        Args:
            make: Builds the batch of a step; called on the thread.
            steps: The steps to build batches for.
            depth: How many batches may be ready or in the making.
        """
        self.seconds_waited = 0.0
        self._make = make
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._remaining_steps = iter(steps)
        self._ahead: collections.deque[Future[Any]] = collections.deque()
        for _ in range(depth):
            self._start_next()

    def _start_next(self) -> None:
        step = next(self._remaining_steps, None)
        if step is not None:
            self._ahead.append(self._thread.submit(self._make, step))

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches; an error on the thread is raised here."""
        while self._ahead:
            start = time.perf_counter()
            batch = self._ahead.popleft().result()
            self.seconds_waited += time.perf_counter() - start
            self._start_next()
            yield batch

    def close(self) -> None:
        """Stop the thread and drop the batches that were not asked for."""
        self._thread.shutdown(cancel_futures=True)
