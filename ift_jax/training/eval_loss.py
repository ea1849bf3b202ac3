"""Loss on examples that are not trained on: sums over a finite pass, divided once."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ift_jax.config.schema import LossConfig, PreferenceConfig
from ift_jax.data.eval_batches import batches_of, eval_plan_of_run
from ift_jax.data.mixture import Mixture
from ift_jax.data.row_batch import Batch
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Model, Params
from ift_jax.sharding.batch_placement import put_batch
from ift_jax.training.interval_metrics import mean, pair_metrics
from ift_jax.training.loss_and_grads import TASK_SUMS, Sums
from ift_jax.training.setup import Run
from ift_jax.training.step import make_eval_step, make_pair_eval_step


class MixtureLoss(NamedTuple):
    """Plain NLL per trained token or, of pairs, their mean preference loss."""

    loss: float  # Over all tasks; NaN if there is nothing trained.
    task_loss: dict[str, float]  # By task, for those that have something trained.
    pairs: dict[str, float] = {}  # The means over pairs of `interval_metrics.pair_metrics`.


class EvalLoss:
    """Computes the loss of a mixture over one pass, or over its first rows.

    It is the plain NLL, and the preference loss where a run on pairs evaluates pairs.
    """

    def __init__(self, run: Run, mixture: Mixture):
        """Compile nothing yet."""
        self._run = run
        self._mixture = mixture
        model, config = run.program.model, run.config
        # One program serves all mixtures of a run: those with fewer tasks have sums of none behind.
        mixtures = [mixture, run.eval, *([run.heldout] if run.heldout else [])]
        n_tasks = max(len(each.tasks) for each in mixtures)
        self._is_of_pairs = config.preference.trains_pairs and mixture.holds_pairs
        preference = config.preference if self._is_of_pairs else None
        self._eval_step = _compiled(model, config.loss, preference, n_tasks)

    def __call__(self, params: Params, stopped: Stopped = never) -> MixtureLoss | None:
        """Compute the loss of all of a model's parameters, frozen ones included.

        Args:
            params: The parameters.
            stopped: Whether to give up before the next batch.

        Returns:
            The loss, or None if it was stopped.
        """
        sums = []
        for batch in batches_of(eval_plan_of_run(self._run.config, self._mixture)):
            if stopped():
                return None
            sums.append(jax.device_get(self._sums(params, batch)))
        total = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *sums)
        loss, weight = ("pair_loss", "pairs") if self._is_of_pairs else ("nll", "weight")
        of_tasks = ("task_pair_loss", "task_pairs") if self._is_of_pairs else TASK_SUMS
        tasks = self._mixture.tasks
        task_loss = {
            task: float(of_task / weight_of_task)
            for task, of_task, weight_of_task in zip(
                tasks, *(total[name][: len(tasks)] for name in of_tasks), strict=True
            )
            if weight_of_task > 0
        }
        return MixtureLoss(
            mean(float(total[loss]), float(total[weight])),
            task_loss,
            pair_metrics(total) if self._is_of_pairs else {},
        )

    def _sums(self, params: Params, batch: Batch) -> Sums:
        """Put a batch on the devices and compute its sums there."""
        shapes = {name: array.shape for name, array in batch.items()}

        def rows_of(rows: slice) -> Batch:
            return {name: array[rows] for name, array in batch.items()}

        return self._eval_step(params, put_batch(self._run.program.mesh, shapes, rows_of))


@functools.lru_cache(maxsize=2)
def _compiled(
    model: Model, loss: LossConfig, preference: PreferenceConfig | None, n_tasks: int
) -> Callable[[Params, dict[str, jax.Array]], Sums]:
    """Return the eval step, of pairs if `preference` is given, as one function for all who ask."""
    if preference is None:
        return jax.jit(make_eval_step(model, loss, n_tasks))
    return jax.jit(make_pair_eval_step(model, loss, preference, n_tasks))
