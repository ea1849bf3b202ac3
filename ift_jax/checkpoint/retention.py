"""Which checkpoints of a run are kept: the newest ones, and the best by an evaluated metric."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
from orbax.checkpoint import checkpoint_managers as policies

from ift_jax.config.schema import TrainConfig
from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes, write
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.paths import as_path

RATINGS_FILE = "checkpoints.json"


class Rating(NamedTuple):
    """What is known of a checkpoint besides its step."""

    eval_loss: float | None = None  # None if it is unknown or not finite.
    bad_streak: int = 0  # The number of steps right before it that were not finite.
    metric: str = ""  # What the run was ranking by, if that is not the eval loss.
    value: float | None = None  # That metric; None if it is unknown or not finite.


class Ranking(NamedTuple):
    """What makes a checkpoint the best one.

    Attributes:
        metric: "eval_loss", or the name of another metric.
        smaller_is_better: Whether its smallest value is the best.
    """

    metric: str = "eval_loss"
    smaller_is_better: bool = True

    @classmethod
    def of(cls, train: TrainConfig) -> Self:
        """Return the ranking of `train.best_metric`."""
        smaller_is_better = train.best_mode == "min"
        if train.best_mode == "auto":
            smaller_is_better = train.best_metric.endswith("loss")
        return cls(train.best_metric, smaller_is_better)

    def value(self, rating: Rating) -> float | None:
        """Return the metric of a checkpoint; None if it is not known."""
        if self.metric == "eval_loss":
            return rating.eval_loss
        return rating.value if rating.metric == self.metric else None

    def key(self, rating: Rating) -> float | None:
        """Return a number that is smaller for better checkpoints; None if it is not known."""
        value = self.value(rating)
        return value if value is None or self.smaller_is_better else -value


BY_LOSS = Ranking()


class BestCheckpoint(NamedTuple):
    """The best of some checkpoints.

    Attributes:
        step: Its step.
        value: Its value of the ranking's metric.
        better: A step whose checkpoint was better and was not kept; None if there is none.
    """

    step: int
    value: float
    better: int | None


def _read_ratings(path: Path) -> dict[int, Rating]:
    """Read the ratings by step."""
    try:
        return {int(step): Rating(**of_step) for step, of_step in read_json_object(path).items()}
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: expected the ratings of the run's checkpoints; found {error}; without "
            "the file the run continues, and train.keep_best ranks only later checkpoints"
        ) from error


def _fields(rating: Rating) -> dict[str, Any]:
    """Return the fields of a rating as the file has them: those of another metric only if known."""
    fields = rating._asdict()
    return fields if rating.metric else {name: fields[name] for name in ("eval_loss", "bad_streak")}


class Retention(policies.PreservationPolicy):
    """Decides which checkpoints Orbax keeps, each time that one is saved.

    The ratings are in a file beside the checkpoints. So a checkpoint can be saved before it is
    evaluated, and a resumed run knows those of the runs before it.
    """

    def __init__(self, workdir: str, *, keep: int, keep_best: int, ranking: Ranking = BY_LOSS):
        """Read the ratings of a workdir.

        Args:
            workdir: The workdir, local or in a bucket.
            keep: How many of the newest checkpoints to keep. One that was saved during a streak of
                steps that were not finite does not count; it is kept only while it is the newest.
            keep_best: How many of the best ones to keep besides. One whose metric is unknown or not
                finite is never among them; of equal ones the newer one is.
            ranking: What makes a checkpoint the best one.

        Raises:
            UserError: The file of ratings is damaged.
        """
        self._path = as_path(os.path.join(workdir, RATINGS_FILE))
        self._keep = keep
        self._keep_best = keep_best
        self._ranking = ranking
        self._ratings = _read_ratings(self._path) if self._path.exists() else {}

    def forget_after(self, step: int) -> None:
        """Drop the ratings of later steps, which a killed run did not finish saving."""
        self._ratings = {saved: rating for saved, rating in self._ratings.items() if saved <= step}

    def rate(
        self,
        step: int,
        *,
        eval_loss: float | None = None,
        value: float | None = None,
        bad_streak: int | None = None,
    ) -> None:
        """Write down what is known of a checkpoint; what is None stays as it is.

        Args:
            step: The step of the checkpoint, which need not be saved yet.
            eval_loss: Its loss on examples that are not trained on.
            value: The metric of the ranking, if that is another one.
            bad_streak: The number of steps right before it that were not finite.
        """
        rating = self._ratings.get(step, Rating())
        if eval_loss is not None:
            rating = rating._replace(eval_loss=eval_loss if math.isfinite(eval_loss) else None)
        if value is not None:
            finite = value if math.isfinite(value) else None
            rating = rating._replace(metric=self._ranking.metric, value=finite)
        if bad_streak is not None:
            rating = rating._replace(bad_streak=bad_streak)
        self._ratings[step] = rating
        if jax.process_index() == 0:
            ratings = {str(saved): _fields(self._ratings[saved]) for saved in self._ratings}
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
        best = self._ranked(rated)[: self._keep_best]
        newest = max(rated, default=None)
        return {*counted[-self._keep :], *best, *([] if newest is None else [newest])}

    def best(self, steps: Sequence[int]) -> BestCheckpoint | None:
        """Return the best of these steps' checkpoints; None if no metric of them is known."""
        of_all = {step: self._ranking.value(rating) for step, rating in self._ratings.items()}
        ranked = self._ranked(self._ratings)
        for step in ranked:
            value = of_all[step]
            if step in steps and value is not None:
                better = ranked[0] if of_all[ranked[0]] != value else None
                return BestCheckpoint(step, value, better)
        return None

    def _ranked(self, ratings: Mapping[int, Rating]) -> list[int]:
        """Return the steps whose metric is known, the best one first, of equal ones the newest."""
        keys = {step: self._ranking.key(rating) for step, rating in ratings.items()}
        ranked = sorted((key, -step) for step, key in keys.items() if key is not None)
        return [-negative for _, negative in ranked]
