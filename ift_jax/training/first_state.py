"""What a run begins with at its first step: its state and, of pairs, what their reference says."""

from typing import NamedTuple

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.io.stop_signals import Stopped
from ift_jax.training.console import Console
from ift_jax.training.references import with_references
from ift_jax.training.resume import initial_state, restore_newest
from ift_jax.training.setup import Run
from ift_jax.training.start import Start
from ift_jax.training.state import State


class FirstState(NamedTuple):
    """How a run begins."""

    run: Run  # With the reference log-probabilities of its pairs, if it trains on pairs.
    step: int
    state: State  # On the devices.


def first_state(
    run: Run,
    start: Start,
    checkpoints: Checkpoints,
    workdir: str,
    console: Console,
    stopped: Stopped,
) -> FirstState:
    """Initialize the state of a run, or restore it from the newest checkpoint.

    Args:
        run: The run.
        start: How it begins in its workdir.
        checkpoints: Its checkpoints.
        workdir: The local folder of its files.
        console: Is told how it begins: damaged checkpoints, and what is computed of pairs.
        stopped: Whether to give up what takes long.

    Raises:
        UserError: As `restore_newest` and `with_references`.
    """
    if not start.step:
        state = initial_state(run)
        run = with_references(run, workdir, console, stopped, lambda: state, begins=True)
        return FirstState(run, 0, state)
    # Before the state is restored: of two states at once, each would take the memory of one.
    run = with_references(run, workdir, console, stopped, lambda: initial_state(run), begins=False)
    step, state = restore_newest(run, checkpoints, start.begins_interval, console)
    console.line(f"resumed at step {step} from {checkpoints.path}")
    return FirstState(run, step, state)
