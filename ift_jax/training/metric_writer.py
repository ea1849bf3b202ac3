"""Metrics of a run as JSON lines and TensorBoard events."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ift_jax.io.files import write_atomically


def summarize(sums: Mapping[str, Any], tasks: Sequence[str], slots_a_step: int) -> dict[str, Any]:
    """One record from an interval's sums: every mean is a sum over a sum, divided once.

    `sums` are host values of the step's metrics (see `training.step`), `slots_a_step` the token
    places in a global batch, padding included.
    """
    steps, weight = max(float(sums["steps"]), 1.0), max(float(sums["weight"]), 1e-30)
    task_nll, task_weight = np.asarray(sums["task_nll"]), np.asarray(sums["task_weight"])
    trained = [(name, i) for i, name in enumerate(tasks) if task_weight[i] > 0]
    return {
        "step": int(sums["step"]),
        "loss": float(sums["loss"]) / steps,
        "nll": float(sums["nll"]) / weight,
        "z_loss": float(sums["z_loss"]) / weight,
        "accuracy": float(sums["correct"]) / weight,
        "grad_norm": float(sums["grad_norm"]),
        "learning_rate": float(sums["learning_rate"]),
        "trained_tokens": int(sums["trained"]),
        "tokens": int(sums["tokens"]),
        "fill": float(sums["tokens"]) / (steps * slots_a_step),
        "skipped": int(sums["skipped"]),
        "task_nll": {name: float(task_nll[i] / task_weight[i]) for name, i in trained},
        "task_tokens": {name: float(task_weight[i]) for name, i in trained},
    }


def drop_later(path: str, step: int) -> None:
    """Removes the lines of later steps from a JSON-lines file (step 0: all lines).

    They belong to work that a killed run did after its last checkpoint, and will be written
    again; so does half a line at the end.
    """
    if os.path.exists(path):
        with open(path, "rb") as file:
            lines = [line for line in file if line.endswith(b"\n")]
        kept = [line for line in lines if step and json.loads(line)["step"] <= step]
        write_atomically(Path(path), b"".join(kept))


class MetricWriter:
    """Appends records to `metrics.jsonl` and scalars to TensorBoard's event files."""

    def __init__(self, workdir: str, step: int):
        """Opens the files to go on after `step` (0: a new run)."""
        with _without("torch", "boto3", "google.cloud.storage"):
            from tensorboardX import SummaryWriter  # Late: commands that only read skip it.

        path = os.path.join(workdir, "metrics.jsonl")
        drop_later(path, step)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held for the run.
        self._events = SummaryWriter(
            os.path.join(workdir, "tensorboard"), purge_step=step + 1 if step else None
        )

    def write(self, record: dict[str, Any]) -> None:
        """Writes one record; nested values go to TensorBoard as `outer/inner`."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for path, value in jax.tree_util.tree_leaves_with_path(record):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if name != "step":
                self._events.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()


@contextlib.contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Has tensorboardX not import these, where they are: seconds, for nothing it does here."""
    hidden = {name: None for name in modules if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
