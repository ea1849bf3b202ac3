"""SIGTERM and Ctrl-C as a request to stop at the next good moment."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Stopped = Callable[[], bool]  # Whether to stop now; asked between two batches.
_T = TypeVar("_T")


class StopSignals:
    """Remembers a signal that asks the process to stop, while it is entered as a context.

    The first SIGTERM or Ctrl-C is only remembered; a second Ctrl-C interrupts at once. Signals are
    only handled on the main thread, because Python delivers them nowhere else.

    Attributes:
        number: The number of the signal that came, or None.
    """

    def __init__(self) -> None:
        """Handle nothing yet."""
        self.number: int | None = None
        self._previous_handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self.received():
            raise KeyboardInterrupt
        self.number = number

    def received(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def exit_status(self) -> int:
        """Return the status of a shell's command that a signal ended, 0 if none came."""
        return 0 if self.number is None else 128 + self.number


def never() -> bool:
    """Return False: the work is not to be stopped."""
    return False


def until(stopped: Stopped, batches: Iterable[_T]) -> Iterator[_T]:
    """Yield what an iterable yields; before each next one, end if `stopped()` holds.

    `stopped` is asked the same number of times by every process that has the same batches.
    """
    if stopped():
        return
    for batch in batches:
        yield batch
        if stopped():
            return
