"""A run's own page, `report.html`, kept up to date while the run trains."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from ift_jax.io.files import write_atomically
from ift_jax.io.paths import Workdir
from ift_jax.report.run_files import REPORT_FILE

_SHARE = 0.01  # A share of the run's time: drawing takes a core that training may need.
_FIRST_SECONDS = 3.0  # What drawing the first page is taken to need, matplotlib's import included.


class RunReport:
    """Writes the page in a thread beside the training, and a last time when the block ends.

    No page is worth a run: what hinders one is a line on the screen, and never an error.
    """

    def __init__(
        self,
        home: Workdir,
        workdir: str,
        line: Callable[[str], None],
        *,
        writes: bool,
        clock: Callable[[], float] = time.perf_counter,
    ):
        """Write nothing yet.

        Args:
            home: The folder of the run's files.
            workdir: The same as the user named it, for the lines.
            line: Prints a line.
            writes: Whether this process writes the page.
            clock: Seconds since some moment.
        """
        self._path = Path(home.local, REPORT_FILE)
        self._home = home
        self._named = os.path.join(workdir, REPORT_FILE)
        self._line = line
        self._writes = writes
        self._clock = clock
        self._began = clock()
        self._seconds = 0.0  # Spent in the thread so far.
        self._next_seconds = _FIRST_SECONDS
        self._thread: threading.Thread | None = None
        self._is_due = False  # The run has come so far that there is something to see.
        self._is_named = False
        self._has_failed = False

    def __enter__(self) -> Self:
        """Return the report itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Write the page a last time, whatever ended the run but a kill."""
        if not self._writes or (error is not None and not isinstance(error, Exception)):
            return
        if self._thread:
            self._thread.join()
        if error is not None:
            # The error's own line matters; where it is of the disk, a page fails for the same.
            with contextlib.suppress(Exception):
                if self._is_due:
                    self._write()
            return
        self._try_to_write()
        self._push()

    def update(self) -> None:
        """Write the page in the background, unless pages would take too much of the run's time.

        Called after evaluations. A page that is left out is made up for by the next, or the last.
        """
        self._is_due = True
        if not self._writes or self._has_failed or (self._thread and self._thread.is_alive()):
            return
        if self._seconds + self._next_seconds > _SHARE * (self._clock() - self._began):
            return
        if not self._is_named:
            self._is_named = True
            self._line(f"report: {self._named}, renewed after evaluations")
        self._thread = threading.Thread(target=self._in_thread, name="report", daemon=True)
        self._thread.start()

    def _in_thread(self) -> None:
        began = time.thread_time()  # Waiting for the run's own threads costs the run nothing.
        self._try_to_write()
        self._next_seconds = time.thread_time() - began
        self._seconds += self._next_seconds

    def _try_to_write(self) -> None:
        """Write the page; the first time that this fails, say so."""
        try:
            self._write()
        except Exception as error:  # Whatever it is, the run goes on.
            self._fail(error)

    def _write(self) -> None:
        # Imported here: the first page comes after the first steps.
        from ift_jax.report.report import report

        write_atomically(self._path, report([self._home.local], self._named_run()).encode())

    def _named_run(self) -> list[str]:
        """Return what the page calls the run: the local copy of a bucket has no name to show."""
        return [os.path.basename(os.path.normpath(os.path.dirname(self._named)))]

    def _push(self) -> None:
        try:
            self._home.push()
        except Exception as error:  # The bucket's clients have exceptions of many kinds.
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            why = " ".join(str(error).split()) or type(error).__name__
            self._line(f"warning: no report, the run goes on without: {why}")
