"""A trace of some training steps, for TensorBoard's profiler and xprof."""

import contextlib
import os
from collections.abc import Callable

import jax

from ift_jax.errors import UserError, WriteError
from ift_jax.io.write_errors import write_errors
from ift_jax.training.goodput import Goodput

NO_STEPS = range(0)
_NOTHING = contextlib.nullcontext()


def check_profile(steps: range, first_step: int, n_steps: int) -> str:
    """Compare the steps to trace with those that a run has left.

    Args:
        steps: The steps to trace, at least one; the first step of a run is 1.
        first_step: The step that the run starts or resumes at.
        n_steps: The number of steps of the whole run.

    Returns:
        What the user should know: which of the steps were done before, so that they cannot be
        traced; "" if none were. That is no error, because a job that is restarted calls the same
        command again.

    Raises:
        UserError: The run has no such steps.
    """
    if steps[-1] > n_steps:
        raise UserError(
            f"--profile {steps[0]}:{steps[-1]}: the run has steps 1 to {n_steps}; expected steps "
            "among them"
        )
    if steps[-1] <= first_step:
        return f"profile: steps {steps[0]} to {steps[-1]} are done already; nothing is traced"
    if steps[0] <= first_step:
        return f"profile: steps {steps[0]} to {first_step} are done already; the others are traced"
    return ""


class Profile:
    """Traces consecutive steps of a run into a folder, or nothing at all.

    The trace begins when the steps before it are done and ends when its last one is, on the
    devices of this process. It holds the devices' and the host's events, and each step by its
    number; Python's own calls are left out, because recording them would slow the steps down.
    """

    def __init__(self, steps: range, workdir: str, goodput: Goodput, log: Callable[[str], None]):
        """Trace nothing yet.

        Args:
            steps: The steps to trace; may be empty.
            workdir: The local folder of the run's files; the trace is written below `tensorboard/`.
            goodput: Is told how long writing takes, which is no part of a step.
            log: Receives a line on what was traced.
        """
        self._steps = steps
        self._folder = os.path.join(workdir, "tensorboard")
        self._goodput = goodput
        self._log = log
        self._first_traced = 0  # 0 while nothing is being traced.

    def step(
        self, step: int, state: object
    ) -> contextlib.AbstractContextManager[None] | jax.profiler.TraceAnnotation:
        """Return the context to run a step in.

        Args:
            step: The number of the step, from 1.
            state: What the step before it computed, maybe still is computing.
        """
        if step not in self._steps:
            return _NOTHING
        if not self._first_traced:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            # By default a trace is named after the second that it is written in.
            options.session_id = f"steps_{step}_to_{self._steps[-1]}"
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._first_traced = step
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def end_step(self, step: int, state: object) -> None:
        """Write the trace if a step was its last one.

        Args:
            step: The number of the step.
            state: What the step computed, maybe still is computing.

        Raises:
            WriteError: It cannot be written.
        """
        if self._first_traced and step == self._steps[-1]:
            jax.block_until_ready(state)
            self.close(step)

    def close(self, step: int) -> None:
        """Write what was traced if that is still to be done, because the run ends at a step.

        Raises:
            WriteError: It cannot be written.
        """
        if not self._first_traced:
            return
        first, self._first_traced = self._first_traced, 0
        with self._goodput.during("other"):
            with write_errors(self._folder):
                os.makedirs(self._folder, exist_ok=True)
            try:
                jax.profiler.stop_trace()
            except jax.errors.JaxRuntimeError as error:
                reason = str(error).partition("\n")[0]
                raise WriteError(f"{self._folder}: the profile is not written: {reason}") from error
        self._log(
            f"profile: steps {first} to {step} are in {self._folder}/plugins/profile; "
            f"show it with: xprof {self._folder}"
        )
