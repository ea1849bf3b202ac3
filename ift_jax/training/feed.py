"""Batches made ahead of the step, on a thread."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Feed:
    """Yields `make(step)` for each step in order, made ahead of time.

    The thread holds no state that matters: a batch is a function of its step alone.

    Attributes:
        waited: seconds that the caller has waited for a batch in all.
    """

    def __init__(self, make: Callable[[int], Any], steps: range, depth: int = 2):
        """Starts the thread, which stays at most `depth` batches ahead."""
        self.waited = 0.0
        self._queue: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
        self._stop = threading.Event()
        self._n = len(steps)
        self._thread = threading.Thread(target=self._work, args=(make, steps), daemon=True)
        self._thread.start()

    def _work(self, make: Callable[[int], Any], steps: range) -> None:
        for step in steps:
            try:
                item: tuple[Any, BaseException | None] = (make(step), None)
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it.
                item = (None, error)
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or item[1] is not None:
                return

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches; raises here what went wrong on the thread."""
        for _ in range(self._n):
            start = time.perf_counter()
            batch, error = self._queue.get()
            self.waited += time.perf_counter() - start
            if error is not None:
                raise error
            yield batch

    def close(self) -> None:
        """Stops the thread."""
        self._stop.set()
        self._thread.join()
