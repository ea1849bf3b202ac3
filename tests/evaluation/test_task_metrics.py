"""The metrics of tasks, by their names."""

import os
import subprocess
import sys

MODULE = """
import tensorflow

from ift_jax.metrics import mean_best, reference_metric

@reference_metric
def same(targets, predictions):
    return {"same": mean_best(targets, predictions, lambda target, answer: float(target == answer))}
"""
SCORE = """
from ift_jax.evaluation.task_metrics import _reference_calls
from ift_jax.metrics import ModelOutput

outputs = [ModelOutput(0, ("a",), "a"), ModelOutput(1, ("b",), "a")]
[call] = _reference_calls(["tasks_with_metric:same"], outputs)
print(call.compute(), call.compute_one(0), call.compute_one(1))
"""


def test_a_metric_beside_its_task_brings_no_lines_of_tensorflow(tmp_path):
    """A module that registers its tasks imports TensorFlow, which writes six lines by itself."""
    (tmp_path / "tasks_with_metric.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    ended = subprocess.run(
        [sys.executable, "-c", SCORE],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.stderr == ""
    assert ended.stdout == "{'same': 0.5} {'same': 1.0} {'same': 0.0}\n"
