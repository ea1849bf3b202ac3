"""Loss on examples that are not trained on: sums over a finite pass, divided once."""

from typing import NamedTuple

import jax
import numpy as np

from ift_jax.data.batches import Batch, eval_batches
from ift_jax.data.mixture import Mixture
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Params
from ift_jax.sharding.batch_placement import put_batch
from ift_jax.training.interval_metrics import mean
from ift_jax.training.loss_and_grads import Sums
from ift_jax.training.setup import Run
from ift_jax.training.step import make_eval_step


class MixtureLoss(NamedTuple):
    """Plain NLL per trained token."""

    loss: float  # Over all tasks; NaN if there is no trained token.
    task_loss: dict[str, float]  # By task, for those that have trained tokens.


class EvalLoss:
    """Computes the plain NLL of a mixture over one pass, or over its first rows."""

    def __init__(self, run: Run, mixture: Mixture):
        """Compile nothing yet."""
        self._run = run
        self._mixture = mixture
        eval_step = make_eval_step(run.program.model, run.config.loss, len(mixture.tasks))
        self._eval_step = jax.jit(eval_step)

    def __call__(self, params: Params, stopped: Stopped = never) -> MixtureLoss | None:
        """Compute the loss of all of a model's parameters, frozen ones included.

        Args:
            params: The parameters.
            stopped: Whether to give up before the next batch.

        Returns:
            The loss, or None if it was stopped.
        """
        config = self._run.config
        batches = eval_batches(
            self._mixture,
            config.data,
            config.model.architecture,
            config.train.batch_size,
            max_rows=config.train.eval_rows,
            bidirectional_prefix=config.format.bidirectional_prefix,
        )
        sums = []
        for batch in batches:
            if stopped():
                return None
            sums.append(jax.device_get(self._sums(params, batch)))
        total = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *sums)
        task_loss = {
            task: float(nll / weight)
            for task, nll, weight in zip(
                self._mixture.tasks, total["task_nll"], total["task_weight"], strict=True
            )
            if weight > 0
        }
        return MixtureLoss(mean(float(total["nll"]), float(total["weight"])), task_loss)

    def _sums(self, params: Params, batch: Batch) -> Sums:
        """Put a batch on the devices and compute its sums there."""
        shapes = {name: array.shape for name, array in batch.items()}

        def rows_of(rows: slice) -> Batch:
            return {name: array[rows] for name, array in batch.items()}

        return self._eval_step(params, put_batch(self._run.program.mesh, shapes, rows_of))
