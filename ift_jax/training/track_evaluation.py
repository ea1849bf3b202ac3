"""Hands the scores of `ift eval` to TensorBoard and to the trackers of a run."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.checkpoint.run_description import CONFIG_FILE
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.paths import is_remote
from ift_jax.training.answer_metrics import metrics_record
from ift_jax.training.event_file import EventFile
from ift_jax.training.final_evaluation import FINAL
from ift_jax.training.metric_writer import scalars_of
from ift_jax.training.trackers import TRACKERS, check_installed, finite, open_trackers

TENSORBOARD = "tensorboard"


def check_tracking(names: Sequence[str], workdir: str) -> None:
    """Check, before a model is loaded, that scores can be handed to these trackers.

    Args:
        names: Keys of `TRACKERS`, or "tensorboard".
        workdir: The workdir whose run they belong to.

    Raises:
        UserError: One is unknown or not installed, or the workdir is not that of a local run.
    """
    for name in names:
        if name not in (TENSORBOARD, *TRACKERS):
            known = ", ".join((TENSORBOARD, *TRACKERS))
            raise UserError(f"--track: {name!r} is no tracker; expected some of {known}")
    if names and (is_remote(workdir) or not os.path.exists(os.path.join(workdir, CONFIG_FILE))):
        raise UserError(f"--track: {workdir} is not the local workdir of a run, to which it adds")
    check_installed([name for name in names if name != TENSORBOARD])


def track_evaluation(
    names: Sequence[str], workdir: str, config: Config, which: str, result: Mapping[str, Any]
) -> None:
    """Add the scores to the run's own runs at the trackers, at the step of the checkpoint.

    Args:
        names: What `check_tracking` has checked.
        workdir: The local workdir.
        config: The config of the evaluation.
        which: The mixture, such as "eval".
        result: What `evaluate` returned, and "step".
    """
    values = scalars_of({FINAL: metrics_record({which: dict(result)})})
    step = result["step"]
    if TENSORBOARD in names:
        events = EventFile(os.path.join(workdir, TENSORBOARD), 0)
        events.write_scalars(step, values)
        events.close()
    others = [name for name in names if name != TENSORBOARD]
    for tracker in open_trackers(others, workdir, dataclasses.asdict(config), resumes=True):
        tracker.log(step, finite(values))
        tracker.close()
