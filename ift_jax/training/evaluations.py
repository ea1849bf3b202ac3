"""What a run measures on examples that it is not trained on, and what follows from it."""

from collections.abc import Iterable, Mapping
from typing import Any

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.evaluation.scoring import Failure
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.stop_signals import Stopped
from ift_jax.models.model import Params
from ift_jax.sharding.first_process import of_first_process
from ift_jax.training.answer_metrics import AnswerMetrics, Results, metrics_record
from ift_jax.training.best_metric import is_used, value_of
from ift_jax.training.console import Console
from ift_jax.training.early_stopping import EarlyStopping
from ift_jax.training.eval_loss import EvalLoss
from ift_jax.training.metric_writer import MetricWriter
from ift_jax.training.setup import Run
from ift_jax.training.step_schedule import Due


class Evaluations:
    """Computes losses and metrics, writes them, ranks checkpoints, and ends a run early."""

    def __init__(
        self,
        run: Run,
        text_generator: TextGenerator,
        checkpoints: Checkpoints,
        console: Console,
        writer: MetricWriter | None,
        workdir: str,
        step: int,
    ):
        """Compile nothing yet.

        Args:
            run: The run.
            text_generator: Generates in its format.
            checkpoints: Are ranked.
            console: Where to print.
            writer: Writes `metrics.jsonl`; None for processes that write nothing.
            workdir: The local folder of the run's files.
            step: The step that the run starts or resumes at.
        """
        self._train = run.config.train
        self._checkpoints = checkpoints
        self._console = console
        self._writer = writer
        self._losses = {"eval": EvalLoss(run, run.eval)}
        if run.heldout:
            self._losses["heldout"] = EvalLoss(run, run.heldout)
        writes = writer is not None
        self._answer_metrics = AnswerMetrics(run, text_generator, workdir, step, write=writes)
        self._early_stopping = EarlyStopping.of_run(self._train, workdir, step)
        self._told: set[tuple[str, str]] = set()  # Metrics that cannot be computed.

    def missing(self, step: int, due: Due) -> Due:
        """Return what was due at the first step without what `metrics.jsonl` has of it already."""
        written = self._writer.names_at_start if self._writer else set()
        evaluate, score, preview = of_first_process(
            [
                due.evaluate and "eval_loss" not in written,
                due.score and not written & {"eval", "heldout"},
                due.preview and "preview_stop_rate" not in written,
            ]
        )
        if score:
            self._answer_metrics.drop(step)
        return due._replace(evaluate=evaluate, score=score, preview=preview)

    def __call__(
        self, params: Params, step: int, due: Due, stopped: Stopped, *, is_saved: bool
    ) -> bool:
        """Do what is due; return whether no stop came between.

        Args:
            params: All of the model's parameters, frozen ones included.
            step: The number of steps that they were trained for.
            due: What is due.
            stopped: Whether to give up.
            is_saved: Whether there is a checkpoint of this step.
        """
        if due.evaluate:
            losses = self._measure_losses(params, stopped)
            if losses is None:
                return False
            # Before the record is written: a run that resumes here computes what has no record.
            if is_saved:
                self._checkpoints.rate(step, eval_loss=losses["eval_loss"])
            self._judge(step, losses, is_saved, is_strict=True)
            self._write(step, losses)
            self._console.held_out(step, losses["eval_loss"], losses.get("eval_preference"))
        if due.score:
            results = self._answer_metrics(params, step, stopped)
            if results is None:
                return False
            record = metrics_record(results)
            has_failed = any(result["failures"] for result in results.values())
            self._judge(step, record, is_saved, is_strict=not has_failed)
            self._write(step, record)
            self._show(step, results)
        return True

    @property
    def why_over(self) -> str:
        """Why the run ends early; "" if it does not."""
        return self._early_stopping.describe() if self._early_stopping.is_over else ""

    def _measure_losses(self, params: Params, stopped: Stopped) -> dict[str, Any] | None:
        record: dict[str, Any] = {}
        for name, eval_loss in self._losses.items():
            losses = eval_loss(params, stopped)
            if losses is None:
                return None
            record[f"{name}_loss"] = losses.loss
            record[f"{name}_task_loss"] = losses.task_loss
            if losses.pairs:
                record[f"{name}_preference"] = losses.pairs
        return record

    def _write(self, step: int, record: Mapping[str, Any]) -> None:
        if self._writer:
            self._writer.write({"step": step, **record})

    def _judge(
        self, step: int, record: Mapping[str, Any], is_saved: bool, *, is_strict: bool
    ) -> None:
        """Let the run's best metric, if the record has it, rank the checkpoint and end the run."""
        if not is_used(self._train):
            return
        value = value_of(self._train, record, is_strict=is_strict)
        if value is None:
            return
        if is_saved and self._train.best_metric != "eval_loss":
            self._checkpoints.rate(step, value=value)
        self._early_stopping.add(step, value)

    def _show(self, step: int, results: Results) -> None:
        """Print the means over tasks, and metrics that cannot be computed, each once."""
        for name, result in results.items():
            self._console.scores(step, name, result)
            for failure in self._new_failures(result["failures"]):
                self._console.line(f"failed: {failure}")

    def _new_failures(self, failures: Iterable[Mapping[str, str]]) -> list[Failure]:
        new = []
        for fields in failures:
            failure = Failure(**fields)
            if (failure.task, failure.metric) not in self._told:
                self._told.add((failure.task, failure.metric))
                new.append(failure)
        return new
