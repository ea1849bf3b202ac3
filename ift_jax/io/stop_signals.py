"""SIGTERM and Ctrl-C as a request to stop at the next good moment."""

import contextlib
import importlib.machinery
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

Stopped = Callable[[], bool]  # Whether to stop now; asked between two batches.
_T = TypeVar("_T")
_IMPORT_SYSTEM = "<frozen importlib._bootstrap_external>"  # The file of its functions' code.
_PAUSE = 0.05  # Seconds until an interrupt that could not come is tried again.


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


@contextlib.contextmanager
def interrupts_when_safe() -> Iterator[None]:
    """Let Ctrl-C wait where it would do harm, and come again where it was lost, while entered.

    A compiled module that is being initialized, such as jaxlib's, cannot be interrupted: the
    process would crash, or the import would fail with an error that does not name the cause. What
    is raised in a callback of the garbage collector or of a weak reference, or in a `__del__`,
    Python only reports to `sys.unraisablehook` and then goes on.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    report = sys.unraisablehook

    def come_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _interrupt_soon()
        else:
            report(unraisable)

    signal.signal(signal.SIGINT, _interrupt_when_safe)
    sys.unraisablehook = come_again
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt_when_safe(number: int, frame: FrameType | None) -> None:
    if not _initializes_a_compiled_module(frame):
        raise KeyboardInterrupt
    _interrupt_soon()


def _interrupt_soon() -> None:
    """Send the main thread another Ctrl-C in a moment."""
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    again = threading.Timer(_PAUSE, signal.pthread_kill, (main_thread, signal.SIGINT))
    again.daemon = True
    again.start()


def _initializes_a_compiled_module(frame: FrameType | None) -> bool:
    """Whether a frame, or one that called it, imports a compiled module."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_SYSTEM:
            loader = frame.f_locals.get("self")
            if isinstance(loader, importlib.machinery.ExtensionFileLoader):
                return True
        frame = frame.f_back
    return False


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
