"""Where the time of a run goes, restarts included: every second has one kind.

The kinds are those of `KINDS`. A second is one of this process's main thread; what the devices or
other threads do meanwhile is not counted again:

* "steps": training steps that count, until their devices are done.
* "waiting": no batch was ready.
* "saving": copying the state for a checkpoint, and waiting for one that is being written.
* "evaluating": eval losses, previews and scores.
* "compiling": compiling what the run executes, and waiting for the train step, which another thread
  compiles.
* "restarting": what an interruption cost: the time between the checkpoint that the run resumes
  from and the first step after it, less what the interrupted process had done at that checkpoint.
  So this holds the steps that are done again, the time without a process, and its new start.
* "other": the start of the run before its first step, measuring the peak, and writing a profile.

`goodput.jsonl` has the seconds of each kind at some steps, so that a process that resumes knows
what the ones before it have spent until its checkpoint. It is written beside saving and evaluating
only, never between steps.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ift_jax.io.files import append_json_lines
from ift_jax.training.step_lines import keep_lines

FILE = "goodput.jsonl"
# What JAX reports when it has traced, lowered or compiled a function.
_COMPILED = "/jax/core/compile/"
KINDS = ("steps", "waiting", "saving", "evaluating", "compiling", "restarting", "other")


class Goodput:
    """The seconds that a run has spent so far, by kind."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        unix: Callable[[], float] = time.time,
    ):
        """Begin to count, as "other".

        Args:
            clock: Seconds since some moment, which never jump.
            unix: Seconds since 1970, which another process can compare with its own.
        """
        self._clock = clock
        self._unix = unix
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._kind = "other"
        self._since = clock()
        self._began = unix()
        self._path: str | None = None
        self._resumes_at: int | None = None  # Until the first step of a process that resumes.
        self._seconds_waited: Callable[[], float] = lambda: 0.0

    def resume(self, folder: str, step: int) -> None:
        """Take over what earlier processes of the run have spent, and write the file from now on.

        Args:
            folder: The local folder of the run's files.
            step: The step that the run starts or resumes at. What the file has of later steps is
                dropped, because they are done again.

        Raises:
            UserError: The file is damaged.
            WriteError: It cannot be written.
        """
        self._count()
        self._path = os.path.join(folder, FILE)
        before = keep_lines(self._path, lambda line_step: line_step <= step)
        if not before:
            append_json_lines(self._path, [self._line(step, {}, unix=self._began)])
            return
        last = before[-1]
        starts_again = bool(last["seconds"]) and not last["is_complete"]
        if starts_again:
            self._resumes_at = step
            self._seconds["restarting"] = self._seconds["other"]
            self._seconds["other"] = 0.0
        if not last["is_complete"]:
            # Clocks of two machines may differ.
            self._seconds["restarting"] += max(self._began - last["unix"], 0.0)
        for kind, seconds in last["seconds"].items():
            self._seconds[kind] += seconds

    def start_steps(self, step: int, seconds_waited: Callable[[], float]) -> None:
        """Count as steps from now on.

        Args:
            step: The number of steps done before.
            seconds_waited: How long the steps of this process have waited for batches so far.
        """
        self._count()
        self._kind = "steps"
        self._resumes_at = None
        self._seconds_waited = seconds_waited
        self.write(step)

    @contextlib.contextmanager
    def during(self, kind: str) -> Iterator[None]:
        """Count the `with` block as another kind, one of `KINDS`."""
        outer = self._switch(kind)
        try:
            yield
        finally:
            self._switch(outer)

    @contextlib.contextmanager
    def compiling_noticed(self) -> Iterator[None]:
        """Count what this thread compiles in the `with` block as "compiling", wherever that is."""
        thread = threading.get_ident()

        def notice(event: str, duration_secs: float, **_: Any) -> None:
            if event.startswith(_COMPILED) and threading.get_ident() == thread:
                self._compiled(duration_secs)

        jax.monitoring.register_event_duration_secs_listener(notice)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(notice)

    def _compiled(self, seconds: float) -> None:
        """Take the seconds that a program was compiled until now from the present kind."""
        kind = self._count()
        target = "compiling" if self._resumes_at is None else "restarting"
        moved = min(seconds, self._seconds[kind])
        self._seconds[kind] -= moved
        self._seconds[target] += moved

    def _switch(self, kind: str) -> str:
        """Count as another kind from now on; return the one before."""
        self._count()
        before, self._kind = self._kind, kind
        return before

    def _count(self) -> str:
        """Add the time since the last call to the present kind, which is returned."""
        now = self._clock()
        kind = self._kind
        # Evaluations that a resuming process makes up for were never done; at step 0 all are done
        # again.
        if self._resumes_at is not None and not (kind == "evaluating" and self._resumes_at > 0):
            kind = "restarting"
        self._seconds[kind] += now - self._since
        self._since = now
        return kind

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each kind until now, of all processes of the run one after another.

        Several hosts that train together count once, by the first one's clock.
        """
        self._count()
        seconds = dict(self._seconds)
        waited = self._seconds_waited()
        seconds["steps"] -= waited
        seconds["waiting"] += waited
        return seconds

    def shares(self) -> dict[str, float]:
        """Return the fraction of each kind; they sum to 1."""
        return shares_of(self.seconds())

    def write(self, step: int, *, is_complete: bool = False) -> None:
        """Write the seconds until now, if this process writes the run's files.

        Args:
            step: The number of steps done.
            is_complete: Whether the run has come to its end. What then passes until somebody makes
                it longer is no restart.

        Raises:
            WriteError: The file cannot be written.
        """
        if self._path is not None:
            line = self._line(step, self.seconds(), unix=self._unix(), is_complete=is_complete)
            append_json_lines(self._path, [line])

    @staticmethod
    def _line(
        step: int, seconds: dict[str, float], *, unix: float, is_complete: bool = False
    ) -> dict[str, Any]:
        return {"step": step, "unix": unix, "is_complete": is_complete, "seconds": seconds}


def shares_of(seconds: dict[str, float]) -> dict[str, float]:
    """Return the fraction of each kind of seconds; all of it is "other" before any has passed."""
    total = sum(seconds.values())
    if total <= 0.0:
        return dict.fromkeys(KINDS, 0.0) | {"other": 1.0}
    return {kind: value / total for kind, value in seconds.items()}
