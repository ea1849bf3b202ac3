"""Ends a run whose best evaluation is too long ago.

All that counts is in `metrics.jsonl`, which a resumed run has: it goes on counting where it was,
knows that it has ended, and goes on after all if the patience is raised.
"""

import math
import os
from typing import Any, NamedTuple

import jax

from ift_jax.checkpoint.retention import Ranking
from ift_jax.config.schema import TrainConfig
from ift_jax.sharding.first_process import of_first_process
from ift_jax.training.best_metric import value_of
from ift_jax.training.metric_writer import METRICS_FILE
from ift_jax.training.step_lines import read_lines


class Best(NamedTuple):
    """The best evaluation so far."""

    value: float
    step: int


class EarlyStopping:
    """Counts the evaluations since the best one.

    Attributes:
        best: The best evaluation; None before the first one that is finite.
        since: The number of evaluations after it; those that are not finite count.
    """

    def __init__(self, train: TrainConfig):
        """Begin without any evaluation."""
        self._train = train
        self.best: Best | None = None
        self.since = 0

    @classmethod
    def of_run(cls, train: TrainConfig, folder: str, step: int) -> "EarlyStopping":
        """Count the evaluations of a run until a step; every process must call this.

        Args:
            train: The run's config.
            folder: The local folder of its files; only that of the first process is read.
            step: The step that the run starts or resumes at.
        """
        counted = cls(train)
        if not train.early_stopping_patience:
            return counted
        if jax.process_index() == 0:
            for line in read_lines(os.path.join(folder, METRICS_FILE)):
                value = value_of(train, line, is_strict=False)
                if value is not None and line["step"] <= step:
                    counted.add(line["step"], value)
        shared: list[Any] = of_first_process([counted.best, counted.since])
        best, counted.since = shared
        counted.best = None if best is None else Best(*best)
        return counted

    def add(self, step: int, value: float) -> None:
        """Count an evaluation; one that is not finite is never the best."""
        if math.isfinite(value) and (self.best is None or self._is_better(value, self.best.value)):
            self.best = Best(value, step)
            self.since = 0
        else:
            self.since += 1

    def _is_better(self, value: float, best: float) -> bool:
        return value < best if Ranking.of(self._train).smaller_is_better else value > best

    @property
    def is_over(self) -> bool:
        """Whether the patience of the run is at its end."""
        return 0 < self._train.early_stopping_patience <= self.since

    def describe(self) -> str:
        """Say why the run ends."""
        metric = self._train.best_metric
        if self.best is None:
            return f"no finite {metric} in {self.since} evaluations"
        return (
            f"no better {metric} in {self.since} evaluations than {self.best.value:.4g} at step "
            f"{self.best.step} (train.early_stopping_patience)"
        )
