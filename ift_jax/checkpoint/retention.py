"""Which checkpoints of a run are kept: the newest ones, and those with the lowest eval loss."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from orbax.checkpoint import checkpoint_managers as policies

from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes, write
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.paths import as_path

RATINGS_FILE = "checkpoints.json"


class Rating(NamedTuple):
    """What is known of a checkpoint besides its step."""

    eval_loss: float | None = None  # None if it is unknown or not finite.
    bad_streak: int = 0  # The number of steps right before it that were not finite.


def _read_ratings(path: Path) -> dict[int, Rating]:
    """Read the ratings by step."""
    try:
        return {int(step): Rating(**of_step) for step, of_step in read_json_object(path).items()}
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: expected the eval losses of the run's checkpoints; found {error}; without "
            "the file the run continues, and train.keep_best ranks only later checkpoints"
        ) from error


class Retention(policies.PreservationPolicy):
    """Decides which checkpoints Orbax keeps, each time that one is saved.

    The ratings are in a file beside the checkpoints. So a checkpoint can be saved before its eval
    loss is computed, and a resumed run knows those of the runs before it.
    """

    def __init__(self, workdir: str, *, keep: int, keep_best: int):
        """Read the ratings of a workdir.

        Args:
            workdir: The workdir, local or in a bucket.
            keep: How many of the newest checkpoints to keep. One that was saved during a streak of
                steps that were not finite does not count; it is kept only while it is the newest.
            keep_best: How many of those with the lowest eval loss to keep besides. A loss that is
                unknown or not finite is never among them; of equal losses the newer one is.

        Raises:
            UserError: The file of ratings is damaged.
        """
        self._path = as_path(os.path.join(workdir, RATINGS_FILE))
        self._keep = keep
        self._keep_best = keep_best
        self._ratings = _read_ratings(self._path) if self._path.exists() else {}

    def forget_after(self, step: int) -> None:
        """Drop the ratings of later steps, which a killed run did not finish saving."""
        self._ratings = {saved: rating for saved, rating in self._ratings.items() if saved <= step}

    def rate(
        self, step: int, *, eval_loss: float | None = None, bad_streak: int | None = None
    ) -> None:
        """Write down what is known of a checkpoint; what is None stays as it is.

        Args:
            step: The step of the checkpoint, which need not be saved yet.
            eval_loss: Its loss on examples that are not trained on.
            bad_streak: The number of steps right before it that were not finite.
        """
        rating = self._ratings.get(step, Rating())
        if eval_loss is not None:
            rating = rating._replace(eval_loss=eval_loss if math.isfinite(eval_loss) else None)
        if bad_streak is not None:
            rating = rating._replace(bad_streak=bad_streak)
        self._ratings[step] = rating
        if jax.process_index() == 0:
            ratings = {str(saved): self._ratings[saved]._asdict() for saved in self._ratings}
            write(self._path, json_bytes(ratings))

    def should_preserve(
        self,
        checkpoints: Sequence[policies.PolicyCheckpointInfo],
        *,
        context: policies.PreservationContext,
    ) -> Sequence[bool]:
        """Return whether to keep each checkpoint; they come in the order of their steps."""
        del context
        kept = self.kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Return which of these steps' checkpoints are kept."""
        rated = {step: self._ratings.get(step, Rating()) for step in sorted(steps)}
        counted = [step for step, rating in rated.items() if not rating.bad_streak]
        by_loss = [
            (rating.eval_loss, -step)
            for step, rating in rated.items()
            if rating.eval_loss is not None
        ]
        best = [-negative for _, negative in sorted(by_loss)[: self._keep_best]]
        newest = max(rated, default=None)
        return {*counted[-self._keep :], *best, *([] if newest is None else [newest])}
