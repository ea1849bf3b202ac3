"""The training loop: resume, step, log, evaluate, save, preview."""

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

import jax

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.run_description import check_same_run, save_description
from ift_jax.config.schema import Config
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.locks import run_lock
from ift_jax.io.paths import Workdir
from ift_jax.training.console import Console
from ift_jax.training.eval_loss import EvalLoss
from ift_jax.training.final_evaluation import final_evaluation
from ift_jax.training.metric_writer import MetricWriter
from ift_jax.training.preemption import StopAgreement, stop_signals
from ift_jax.training.prefetch import Prefetcher
from ift_jax.training.previews import Previews
from ift_jax.training.resume import checkpointed_part, initial_state, restore_state
from ift_jax.training.setup import Run, prepare_run
from ift_jax.training.state import State, all_params
from ift_jax.training.step_log import StepLog
from ift_jax.training.step_schedule import Due, StepSchedule
from ift_jax.training.throughput import Throughput

FILES = {
    "config.yaml": "the config, for --config",
    "config.json": "the same with every field",
    "tokenizer": "the tokenizer",
    "checkpoints": "the state, newest last",
    "metrics.jsonl": "losses and speed of logged steps, eval losses, stop rates",
    "tensorboard": "the same as event files",
    "samples.jsonl": "completions of fixed prompts",
    "evaluation.json": "scores on unseen examples",
    "answers.jsonl": "every scored answer",
}


def train(
    config: Config, workdir: str, console: Console, reasons: Mapping[str, str] | None = None
) -> None:
    """Train to the end, resuming from the workdir's newest checkpoint if it has one.

    On SIGTERM or the first Ctrl-C the current step is finished, its state is saved, and the
    function returns; calling it again resumes from that step.

    Args:
        config: The run's config; `model.init_from` is resolved.
        workdir: The folder of the run's files, local or in a bucket.
        console: Where to print.
        reasons: Dotted names of fields -> why they were chosen, for `config.yaml`.

    Raises:
        UserError: The config or data is invalid, or the run diverged.
    """
    began = time.perf_counter()
    _set_compilation_cache(config.train.compile_cache)
    is_first_process = jax.process_index() == 0
    home = Workdir(workdir, writes=is_first_process)
    os.makedirs(home.local, exist_ok=True)
    check_same_run(workdir, config)
    run = prepare_run(config, console.line)
    console.line(*run.describe())

    lock = run_lock(workdir) if is_first_process else contextlib.nullcontext()
    with jax.set_mesh(run.program.mesh), lock, stop_signals() as stop_received:
        if is_first_process:
            save_description(home.local, config, run.tokenizer, reasons)
        trainer = Trainer(run, home, console, writes=is_first_process)
        trainer.run_steps(StopAgreement(stop_received, run.program.mesh))
        trainer.finish(began)
    _print_files(workdir, home, console)


def _set_compilation_cache(folder: str) -> None:
    """Make JAX cache compiled programs in `folder`, if given."""
    if folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _print_files(workdir: str, home: Workdir, console: Console) -> None:
    """Print the files of a workdir and what they hold."""
    lines = ["files:"]
    for name, content in FILES.items():
        # The checkpoints of a workdir in a bucket have no local copy.
        if name == "checkpoints" or os.path.exists(os.path.join(home.local, name)):
            lines.append(f"  {os.path.join(workdir, name):<44} {content}")
    console.line(*lines)


class Trainer:
    """A run in progress: its state on the devices, and everything that it writes.

    Call `run_steps` once, then `finish`.
    """

    def __init__(self, run: Run, home: Workdir, console: Console, *, writes: bool):
        """Restore or initialize the state while the train step compiles.

        Args:
            run: The run.
            home: The folder of the run's files.
            console: Where to print.
            writes: Whether this process writes the files other than checkpoints.
        """
        config = run.config.train
        self._run = run
        self._home = home
        self._console = console
        self._schedule = StepSchedule(config, run.n_steps)
        self._checkpoints = Checkpoints(
            home.path, keep=config.max_to_keep, keep_best=config.keep_best
        )
        self._first_step = self._checkpoints.latest_step() or 0
        # A run that is already finished needs no train step.
        is_finished = self._first_step >= run.n_steps
        self._compiling = None if is_finished else run.program.compile_in_background()
        self._state = self._restored_or_initial_state()
        self._step = self._first_step
        self._saved_step = self._first_step
        self._stopped = False

        self._writer = MetricWriter(home.local, self._first_step) if writes else None
        self._text_generator = TextGenerator(run.config, run.tokenizer, run.program.model)
        self._previews = Previews(
            self._text_generator, run.eval, home.local, self._first_step, write=writes
        )
        self._eval_losses = {"eval": EvalLoss(run, run.eval)}
        if run.heldout:
            self._eval_losses["heldout"] = EvalLoss(run, run.heldout)
        if not self._first_step and config.preview_prompts:
            self._preview(0)
        self._prefetcher = Prefetcher(run.device_batch, range(self._first_step, run.n_steps))
        self._throughput = Throughput(run, self._prefetcher)
        self._log = StepLog(run, self._throughput, self._writer, console)
        console.start(self._first_step, run.n_steps)

    def _restored_or_initial_state(self) -> State:
        """Return the state of the newest checkpoint, or that of step 0."""
        if not self._first_step:
            return initial_state(self._run)
        state = restore_state(self._run, self._checkpoints, self._first_step)
        self._console.line(f"resumed at step {self._first_step} from {self._checkpoints.path}")
        return state

    def run_steps(self, stop: StopAgreement) -> None:
        """Train until the last step, or until the processes agree to stop.

        Raises:
            UserError: Too many steps in a row were not finite.
        """
        try:
            # Without a compiled step the run is finished, and there are no batches either.
            train_step: Any = None if self._compiling is None else self._compiling.result()
            for step, batch in enumerate(self._prefetcher, start=self._first_step + 1):
                self._state, metrics = train_step(self._state, batch)
                self._step = step
                self._log.report()  # Reports the previous logged step, so the devices never wait.
                self._throughput.measure_peak_once(metrics)
                due = self._schedule.at(step, stopping=stop.requested())
                if due.log:
                    self._log.remember(metrics)
                if due.interrupts_training:
                    self._log.report()
                    with self._throughput.paused():
                        self._evaluate_save_and_preview(step, due)
                if due.stop:
                    self._stopped = step < self._run.n_steps
                    break
        finally:
            self._prefetcher.close()
            self._console.stop()
            self._home.push()
            self._checkpoints.wait()

    def _evaluate_save_and_preview(self, step: int, due: Due) -> None:
        """Do what is due after a step besides logging."""
        eval_loss = self._evaluate(step) if due.evaluate else None
        # Pushed before the checkpoint is saved, so that a run that resumes there has these lines.
        self._home.push()
        if due.checkpoint:
            self._checkpoints.save(step, checkpointed_part(self._run, self._state), eval_loss)
            self._saved_step = step
        if due.preview:
            self._preview(step)
            self._home.push()

    def _evaluate(self, step: int) -> float:
        """Write the loss of every evaluated mixture; return that of unseen examples."""
        params = all_params(self._state)
        record: dict[str, Any] = {"step": step}
        for name, eval_loss in self._eval_losses.items():
            losses = eval_loss(params)
            record[f"{name}_loss"] = losses.loss
            record[f"{name}_task_loss"] = losses.task_loss
        if self._writer:
            self._writer.write(record)
        self._console.line(f"step {step}/{self._run.n_steps} · eval loss {record['eval_loss']:.4f}")
        return record["eval_loss"]

    def _preview(self, step: int) -> None:
        """Write and print completions of the fixed prompts."""
        preview = self._previews.write(all_params(self._state), step)
        self._console.line(
            f"samples at step {step} (stop rate {preview.stop_rate:.2f}):", *preview.lines
        )
        if self._writer:
            self._writer.write({"step": step, "preview_stop_rate": preview.stop_rate})

    def finish(self, began: float) -> None:
        """Say how the run ended, evaluate it if it is complete, and close all files.

        Args:
            began: The time at which the run began, as read from `time.perf_counter`.
        """
        if self._stopped:
            self._console.line(
                f"stopped by a signal at step {self._step}; saved. The same command resumes."
            )
        else:
            line = f"trained to step {self._saved_step} in {time.perf_counter() - began:.0f} s"
            if wait_share := self._throughput.data_wait_share():
                line += f"; the device waited for data {wait_share:.2%} of the time"
            self._console.line(line)
            if self._run.config.evaluation.examples:
                final_evaluation(
                    self._run,
                    self._text_generator,
                    all_params(self._state),
                    self._console,
                    self._home.local if self._writer else None,
                )
        self._checkpoints.close()
        if self._writer:
            self._writer.close()
        self._home.push()
