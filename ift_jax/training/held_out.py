"""Held-out loss: sums over a finite pass, divided once."""

from typing import Any

import jax
import numpy as np

from ift_jax import partitioning
from ift_jax.data.batches import Batch, eval_batches
from ift_jax.data.view import MixtureView
from ift_jax.training import step as step_lib
from ift_jax.training.setup import Run


class HeldOutLoss:
    """Plain NLL over a finite, complete pass (or its first rows): sums, divided once."""

    def __init__(self, run: Run, view: MixtureView):
        """Compiles nothing yet."""
        self._run, self._view = run, view
        self._step = jax.jit(step_lib.make_eval_step(run.model, run.config.loss, len(view.tasks)))

    def __call__(self, params: Any) -> dict[str, Any]:
        """Loss a trained token, over all tasks and for each."""
        config, mesh = self._run.config, self._run.mesh
        batches = eval_batches(
            self._view, config.data, config.model.architecture, config.train.batch_rows,
            max_rows=config.train.eval_rows,
            bidirectional_prefix=config.format.bidirectional_prefix,
        )  # fmt: skip
        total: Any = None
        for batch in batches:
            shapes = {name: array.shape for name, array in batch.items()}
            on_device = partitioning.put_batch(mesh, shapes, lambda s, b=batch: _rows(b, s))
            sums = jax.tree.map(np.float64, jax.device_get(self._step(params, on_device)))
            total = sums if total is None else jax.tree.map(np.add, total, sums)
        tasks = {
            name: float(total["task_nll"][i] / total["task_weight"][i])
            for i, name in enumerate(self._view.tasks)
            if total["task_weight"][i] > 0
        }
        return {"loss": float(total["nll"] / total["weight"]), "task_loss": tasks}


def _rows(batch: Batch, rows: slice) -> Batch:
    return {name: array[rows] for name, array in batch.items()}
