"""Several rounds of rejection sampling, each with the model that the one before has trained."""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.stop_signals import Stopped
from ift_jax.synthesis.generator import Completer
from ift_jax.synthesis.rejection import run_round
from ift_jax.synthesis.rejection_plan import Plan
from ift_jax.synthesis.rewards import Reward
from ift_jax.synthesis.selected_rows import RoundResult

MODEL, CONTROL_MODEL = "model", "control_model"  # Workdirs inside a round's folder.

# Trains the starting model on a file of rows in a workdir, or resumes that; returns whether the
# run is complete. It is not after a signal.
Train = Callable[[str, str], bool]


class Models(NamedTuple):
    """What opens and trains models, as `run_rounds` takes it.

    Attributes:
        open_completer: Opens a model, the starting one or a round's workdir.
        open_reward: Opens the reward.
        train: Trains the starting model; None: nothing is trained, so there is one round.
        trains_control: Whether a second model is trained on each round's control.
    """

    open_completer: Callable[[str], Completer]
    open_reward: Callable[[], Reward]
    train: Train | None = None
    trains_control: bool = False


class Rounds(NamedTuple):
    """What the rounds gave.

    Attributes:
        results: Of each round that was selected from.
        is_complete: Whether all is done; not after a signal.
    """

    results: list[RoundResult]
    is_complete: bool


def round_folder(output: str, number: int) -> str:
    """Return the folder of a round, from 1."""
    return os.path.join(output, f"round-{number}")


def run_rounds(
    plan: Plan,
    output: str,
    n_rounds: int,
    start: str,
    models: Models,
    *,
    stopped: Stopped,
    log: Callable[[str], None] = print,
) -> Rounds:
    """Run all rounds, or continue them.

    The first round's completions are the starting model's, those of every other one the model's
    that the round before has trained. Training always begins with the starting model, so that what
    a round selected badly does not stay.

    Args:
        plan: What is sampled and selected in each round.
        output: Gets a folder for each round.
        n_rounds: How many.
        start: The starting model.
        models: Opens and trains models.
        stopped: Whether to end before the next group of completions.
        log: Gets lines about the progress.

    Raises:
        UserError: A round selects nothing, or as `run_round`.
    """
    results: list[RoundResult] = []
    model = start
    for number in range(1, n_rounds + 1):
        folder = round_folder(output, number)
        result = run_round(
            plan,
            folder,
            number,
            functools.partial(models.open_completer, model),
            models.open_reward,
            stopped=stopped,
            log=log,
        )
        if result is None:
            return Rounds(results, is_complete=False)
        results.append(result)
        if not result.summary["selected"]:
            raise UserError(
                f"{result.selected}: round {number} selected nothing, of "
                f"{result.summary['completions_with_reward']} completions with a reward; expected "
                "a lower --threshold, more --samples, or an easier reward"
            )
        if models.train is None:
            break
        model = os.path.join(folder, MODEL)
        data = {model: result.selected}
        if models.trains_control:
            data[os.path.join(folder, CONTROL_MODEL)] = result.control
        for workdir, rows in data.items():
            if stopped() or not models.train(rows, workdir):
                return Rounds(results, is_complete=False)
    return Rounds(results, is_complete=True)
