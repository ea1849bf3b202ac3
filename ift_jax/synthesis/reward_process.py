"""Reward functions in a process of their own, which may raise, hang or crash without any harm.

A function that hangs, inside a library of C too, can only be ended together with its process. The
process is started before any model is loaded, so that a mistake in the function's file is found
early, and again after each time that it was ended.
"""

import math
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from ift_jax.errors import UserError, described
from ift_jax.io.child_process import die_with_parent
from ift_jax.synthesis.reward_functions import (
    Function,
    FunctionSpec,
    load_function,
    source_digest,
)
from ift_jax.synthesis.rewards import DIED, NOT_A_NUMBER, RAISED, TIMED_OUT, Outcome, Sample

_START_SECONDS = 120.0  # For the imports of a user's module.
_READY = "ready"


class FunctionReward:
    """The rewards of a function; a `Reward`.

    Attributes:
        name: What messages call it.
        spec: Which function it is.
    """

    def __init__(self, spec: FunctionSpec, timeout: float = 10.0):
        """Start the process, and load the function in it.

        Args:
            spec: Which function.
            timeout: Seconds that one call may take.

        Raises:
            UserError: The function cannot be loaded.
        """
        self.name = f"reward function {spec.name}"
        self.spec = spec
        self._timeout = timeout
        self._process, self._connection = self._started()

    def settings(self) -> dict[str, Any]:
        return {
            "reward": self.spec.name,
            "answer field": self.spec.answer_field,
            "reward function's file": source_digest(self.spec),
            "reward timeout": self._timeout,
        }

    def score(self, samples: Sequence[Sample]) -> list[Outcome]:
        return [self._outcome(sample) for sample in samples]

    def close(self) -> None:
        self._connection.close()
        self._process.kill()  # It has nothing to write.
        self._process.join()

    def _outcome(self, sample: Sample) -> Outcome:
        try:
            self._connection.send((sample.completion, dict(sample.row)))
            if self._connection.poll(self._timeout):
                return self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            status = self._process.exitcode
            self._restart()
            return Outcome(None, DIED, f"ended its process with status {status}")
        self._restart()
        return Outcome(None, TIMED_OUT, f"gave no reward within {self._timeout:g} s")

    def _restart(self) -> None:
        self.close()
        self._process, self._connection = self._started()

    def _started(self) -> tuple[SpawnProcess, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.spec), daemon=True)
        process.start()
        theirs.close()  # So that the end of the process ends what we read.
        try:
            answer = ours.recv() if ours.poll(_START_SECONDS) else "took too long to load"
        except EOFError:
            process.join()
            answer = f"ended its process with status {process.exitcode} while it was loaded"
        if answer == _READY:
            return process, ours
        ours.close()
        process.kill()
        process.join()
        if isinstance(answer, UserError):
            raise answer
        raise UserError(f"{self.name}: {answer}")


def _serve(connection: Connection, spec: FunctionSpec) -> None:
    """Answer with the outcome of each (completion, row) until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what Ctrl-C means.
    die_with_parent()
    try:
        function = load_function(spec)
    except UserError as error:
        connection.send(error)
        return
    connection.send(_READY)
    while True:
        try:
            completion, row = connection.recv()
        except EOFError:
            return
        connection.send(outcome_of(function, completion, row))


def outcome_of(function: Function, completion: str, row: dict[str, Any]) -> Outcome:
    """Call a reward function; whatever it does is an outcome."""
    try:
        value = function(completion, row)
    except (Exception, SystemExit) as error:
        return Outcome(None, RAISED, f"raised {described(error)}")
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except Exception:  # Whatever a class of theirs does when it is asked for a number.
        number = math.nan
    if math.isfinite(number):
        return Outcome(number)
    shown = f"{type(value).__name__} {value!r:.40}"
    return Outcome(None, NOT_A_NUMBER, f"returned {shown}; expected a finite number")
