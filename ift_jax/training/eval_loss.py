"""Held-out loss: sums over a finite pass, divided once."""

from typing import Any

import jax
import numpy as np

from ift_jax.data.batches import eval_batches
from ift_jax.data.mixture import Mixture
from ift_jax.sharding import rules
from ift_jax.training.setup import Run
from ift_jax.training.step import make_eval_step


class EvalLoss:
    """Plain NLL over a finite, complete pass (or its first rows)."""

    def __init__(self, run: Run, view: Mixture):
        """Compiles nothing yet."""
        self._run, self._view = run, view
        self._step = jax.jit(make_eval_step(run.model, run.config.loss, len(view.tasks)))

    def __call__(self, params: Any) -> dict[str, Any]:
        """Loss a trained token, over all tasks and for each."""
        config, sums = self._run.config, []
        for batch in eval_batches(
            self._view,
            config.data,
            config.model.architecture,
            config.train.batch_size,
            max_rows=config.train.eval_rows,
            bidirectional_prefix=config.format.bidirectional_prefix,
        ):
            shapes = {name: array.shape for name, array in batch.items()}
            on_device = rules.put_batch(
                self._run.mesh, shapes, lambda s, b=batch: {name: b[name][s] for name in b}
            )
            sums.append(jax.device_get(self._step(params, on_device)))
        total = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *sums)
        by_task = zip(self._view.tasks, total["task_nll"], total["task_weight"], strict=True)
        tasks = {name: float(nll / weight) for name, nll, weight in by_task if weight > 0}
        return {"loss": float(total["nll"] / total["weight"]), "task_loss": tasks}
