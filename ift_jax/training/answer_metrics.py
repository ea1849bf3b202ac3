"""Each task's metrics on a fixed subset of the evaluated examples, while a run trains."""

import os
from collections.abc import Mapping
from typing import Any

from ift_jax.evaluation.evaluate import Plan, evaluate, plan
from ift_jax.evaluation.metric_values import is_number, without_nan
from ift_jax.evaluation.questions import seeded
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.files import append_json_lines
from ift_jax.io.stop_signals import Stopped
from ift_jax.models.model import Params
from ift_jax.sharding.first_process import of_first_process
from ift_jax.training.best_metric import OVERALL
from ift_jax.training.setup import Run
from ift_jax.training.step_lines import keep_lines, keep_lines_until

FILE = "evaluations.jsonl"
# Not followed through training: the same at every step.
_CONSTANT = ("examples", "baseline", "tasks")
_KEPT = ("tasks", "overall", "clusters", "groups", "intervals", "failures")

Results = dict[str, dict[str, Any]]  # What `evaluate` returned, by mixture: "eval", "heldout".


class AnswerMetrics:
    """Answers the same examples at given steps, and scores the answers as `ift eval` does."""

    def __init__(
        self, run: Run, text_generator: TextGenerator, workdir: str, step: int, *, write: bool
    ):
        """Read no example yet, and drop what the file has from later steps.

        Args:
            run: The run.
            text_generator: Generates in the run's format.
            workdir: The local folder of `evaluations.jsonl`.
            step: The step that the run starts or resumes at.
            write: Whether this process writes the file.
        """
        sets = run.config.evaluation.sets
        mixtures = {"eval": run.eval, "heldout": run.heldout}
        self._mixtures = {
            name: mixture for name, mixture in mixtures.items() if mixture and name in sets
        }
        self._choose = seeded(run.config.train.eval_metrics_examples, run.config.seed)
        self._text_generator = text_generator
        self._plans: dict[str, Plan] = {}
        self._path = os.path.join(workdir, FILE) if write else None
        if self._path:
            keep_lines_until(self._path, step)

    def drop(self, step: int) -> None:
        """Remove what the file has of a step, because it may be incomplete."""
        if self._path:
            keep_lines(self._path, lambda line_step: line_step != step)

    def __call__(self, params: Params, step: int, stopped: Stopped) -> Results | None:
        """Evaluate, and append the scores to the file.

        Args:
            params: All of the model's parameters, frozen ones included.
            step: The number of steps that they were trained for.
            stopped: Whether to give up before the next batch, block of tokens, or metric.

        Returns:
            The results of the first process, on every process; None if it was stopped, and then
            the file is as it was.
        """
        results: Results = {}
        for name, mixture in self._mixtures.items():
            if name not in self._plans:
                self._plans[name] = plan(self._text_generator, mixture, self._choose)
            result = evaluate(self._text_generator, params, self._plans[name], stopped)
            if not result["complete"]:
                return None
            results[name] = {key: result[key] for key in _KEPT}
        # A metric that draws at random, say, differs from process to process.
        results = of_first_process(results)
        if self._path:
            records = [{"step": step, "which": name, **results[name]} for name in results]
            append_json_lines(self._path, map(without_nan, records))
        return results


def metrics_record(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Return the numbers of an evaluation for `metrics.jsonl`: mixture -> task -> metric.

    The means over tasks are those of a task called "overall".
    """
    return {
        name: {
            task: _numbers(scores)
            for task, scores in {**result["tasks"], OVERALL: result["overall"]}.items()
        }
        for name, result in results.items()
    }


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    return {
        metric: float(value)
        for metric, value in scores.items()
        if is_number(value) and metric not in _CONSTANT
    }
