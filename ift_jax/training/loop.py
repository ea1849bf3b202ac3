"""The training loop: resume, step, log, evaluate, save, preview."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.retention import Ranking
from ift_jax.config.schema import Config
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.locks import run_lock
from ift_jax.io.outputs import check_workdir
from ift_jax.io.paths import Workdir, displayed
from ift_jax.io.stop_signals import StopSignals
from ift_jax.io.write_errors import write_errors
from ift_jax.training.bad_steps import BadSteps
from ift_jax.training.console import Console
from ift_jax.training.evaluations import Evaluations
from ift_jax.training.final_evaluation import final_evaluation
from ift_jax.training.first_state import first_state
from ift_jax.training.goodput import Goodput
from ift_jax.training.metric_writer import MetricWriter
from ift_jax.training.prefetch import Prefetcher
from ift_jax.training.previews import Previews
from ift_jax.training.profile import NO_STEPS, Profile, check_profile
from ift_jax.training.resume import checkpointed_part
from ift_jax.training.run_report import RunReport
from ift_jax.training.setup import Run, describe_training, prepare_run
from ift_jax.training.start import (
    Start,
    check_config,
    check_still_new,
    find_start,
    record_end,
    record_start,
    trained_tokenizer,
)
from ift_jax.training.state import all_params
from ift_jax.training.step_log import StepLog
from ift_jax.training.step_schedule import Due, StepSchedule
from ift_jax.training.stop_agreement import StopAgreement
from ift_jax.training.summary import file_lines, next_lines, summary_lines
from ift_jax.training.throughput import Throughput
from ift_jax.training.trackers import check_installed, closed_on_failure
from ift_jax.training.train_program import set_compilation_cache


def train(
    config: Config,
    workdir: str,
    console: Console,
    reasons: Mapping[str, str] | None = None,
    *,
    allow_new_data: bool = False,
    profile: range = NO_STEPS,
    on_accepted: Callable[[], None] = lambda: None,
) -> bool:
    """Train to the end, resuming from the workdir's newest checkpoint if it has one.

    On SIGTERM or the first Ctrl-C the current step or batch is finished, the state is saved, and
    the function returns; calling it again resumes from that step.

    Args:
        config: The run's config; `model.init_from` is resolved.
        workdir: The folder of the run's files, local or in a bucket.
        console: Where to print.
        reasons: Dotted names of fields -> why they were chosen, for `config.yaml`.
        allow_new_data: Whether a run may go on with other data, template or order of batches than
            it began with.
        profile: The steps to trace, from 1; the first process writes the trace.
        on_accepted: Called once the run may begin or go on, before anything is written.

    Returns:
        Whether the run is complete, and no signal asked the process to stop.

    Raises:
        UserError: The config or data is invalid, the run has no such steps, another run is in the
            workdir, or the run diverged.
    """
    began = time.perf_counter()
    goodput = Goodput()
    check_installed(config.train.track)
    set_compilation_cache(config.train.compile_cache)
    is_first_process = jax.process_index() == 0
    check_workdir(workdir)
    home = Workdir(workdir, writes=is_first_process)
    with contextlib.ExitStack() as stack:
        is_new = not os.path.isdir(home.local)
        if is_first_process and not is_new:
            stack.enter_context(run_lock(workdir))  # Before any work that a second run would do.
        check_config(config, home, allow_new_data)
        run = prepare_run(config, console.line, trained_tokenizer(config, home))
        console.line(*run.describe(), describe_training(config))
        start = find_start(run, config, home, allow_new_data, reasons)
        on_accepted()
        console.line(*start.lines)
        if profile:
            console.line(*filter(None, [check_profile(profile, start.step or 0, run.n_steps)]))
        if start.is_done:
            console.line(
                f"nothing to do: the run in {displayed(workdir)} is {start.describe_end()}"
            )
            return True
        with write_errors(workdir):
            os.makedirs(home.local, exist_ok=True)
        if is_first_process and is_new:
            stack.enter_context(run_lock(workdir))
            check_still_new(home)
        stack.enter_context(jax.set_mesh(run.program.mesh))
        stack.enter_context(goodput.compiling_noticed())
        stop = StopAgreement(stack.enter_context(StopSignals()), run.program.mesh)
        with home.deletion_named():
            writes_report = is_first_process and config.train.report
            with RunReport(home, workdir, console.line, writes=writes_report) as report:
                trainer = Trainer(
                    run, home, console, start, stop, goodput, profile, report, is_first_process
                )
                with closed_on_failure([trainer.writer]):
                    trainer.run_steps()
                    trainer.finish(began)
        # Twice: a vote of several processes is known one call later.
        was_asked_to_stop = stop.requested() or stop.requested()
    console.line(*file_lines(home.local, workdir))
    if is_first_process and trainer.is_complete:
        console.line(*summary_lines(home.local, console.width))
        console.verbatim(*next_lines(workdir))
    return trainer.is_complete and not was_asked_to_stop


class Trainer:
    """A run in progress: its state on the devices, and everything that it writes.

    Call `run_steps` once, then `finish`, both with its `writer` closed on failure.
    """

    def __init__(
        self,
        run: Run,
        home: Workdir,
        console: Console,
        start: Start,
        stop: StopAgreement,
        goodput: Goodput,
        profile: range,
        report: RunReport,
        writes: bool,
    ):
        """Restore or initialize the state while the train step compiles.

        Nothing is written before the state is restored.

        Args:
            run: The run.
            home: The folder of the run's files.
            console: Where to print.
            start: How the run begins there.
            stop: Whether the run was asked to stop.
            goodput: Counts where the time goes.
            profile: The steps to trace.
            report: The run's page, renewed after evaluations.
            writes: Whether this process writes the files other than checkpoints.
        """
        config = run.config.train
        self._run = run
        self._home = home
        self._console = console
        self._start = start
        self._stop = stop
        self._goodput = goodput
        self._report = report
        self._schedule = StepSchedule(config, run.n_steps)
        ranking = Ranking.of(config)
        self._checkpoints = Checkpoints(
            home.path, keep=config.max_to_keep, keep_best=config.keep_best, ranking=ranking
        )
        if not start.has_all_steps:
            self._checkpoints.check_space(checkpointed_part(run, run.program.state_shapes))
        # A run that is already finished needs no train step.
        self._compiling = None if start.has_all_steps else run.program.compile_in_background()
        self._first_step, self._state = self._restore_or_initialize()
        run = self._run
        self._saved_step = None if start.step is None else self._first_step
        if writes:
            record_start(start, self._first_step, run, home)
        self._step = self._first_step
        self._owes_checkpoint = False  # One was due during steps that were not finite.
        self._stopped = False
        self.writer = None
        if writes:
            self.writer = MetricWriter.of_run(run.config, home.local, self._first_step)
        with closed_on_failure([self.writer]):
            if writes:
                goodput.resume(home.local, self._first_step)
            self._make_parts(profile if writes else NO_STEPS)
            console.start(self._first_step, run.n_steps, "compiling the train step")

    def _make_parts(self, profiled: range) -> None:
        """Make what steps, evaluations and previews call, from what the constructor was given."""
        run, step, folder, console = self._run, self._first_step, self._home.local, self._console
        generator = TextGenerator(run.config, run.tokenizer, run.program.model)
        self._text_generator = generator
        self._previews = Previews(generator, run.eval, folder, step, console, self.writer)
        self._evaluations = Evaluations(
            run, generator, self._checkpoints, console, self.writer, folder, step
        )
        self._prefetcher = Prefetcher(run.device_batch, range(step, run.n_steps))
        self._throughput = Throughput(run, self._goodput)
        self._log = StepLog(run, self._throughput, self._goodput, self.writer, console)
        self._profile = Profile(profiled, folder, self._goodput, console.line)
        self._bad_steps = BadSteps(run.config.train.max_bad_steps)

    def _restore_or_initialize(self) -> tuple[int, Any]:
        """Return the step that the run begins at, and the state there."""
        start, workdir, stopped = self._start, self._home.local, self._stop.requested
        first = first_state(self._run, start, self._checkpoints, workdir, self._console, stopped)
        run = self._run = first.run
        if self._compiling is None and first.step < min(start.step or 0, run.n_steps):
            self._compiling = run.program.compile_in_background()
        return first.step, first.state

    @property
    def is_complete(self) -> bool:
        """Whether the last step of the run is done and saved."""
        is_last = self._step == self._run.n_steps or bool(self._evaluations.why_over)
        return not self._stopped and is_last and self._saved_step == self._step

    @property
    def _is_over(self) -> bool:
        """Whether no further step is to be done, because of a stop or of early stopping."""
        return self._stopped or bool(self._evaluations.why_over)

    def run_steps(self) -> None:
        """Train until the last step, or until the processes agree to stop.

        Raises:
            UserError: Too many steps in a row were not finite.
            WriteError: A checkpoint or another file of the run cannot be written.
        """
        try:
            self._do_what_is_missing()
            if self._is_over:
                return
            train_step = self._compiled_step()
            for step, batch in enumerate(self._prefetcher, start=self._first_step + 1):
                with self._profile.step(step, self._state):
                    self._state, metrics = train_step(self._state, batch)
                self._step = step
                self._log.report()  # Reports the previous logged step, so the devices never wait.
                self._checkpoints.raise_failed_save()
                self._bad_steps.watch(step, metrics["bad_streak"])
                self._throughput.measure_peak_once(metrics)
                due = self._schedule.at(step, stopping=self._stop.requested())
                if due.log:
                    self._check_workdir(asks_bucket=False)
                    self._log.remember(metrics)
                self._profile.end_step(step, self._state)
                if due.interrupts_training or self._owes_checkpoint:
                    # Otherwise these steps would count as saving or evaluating.
                    jax.block_until_ready(metrics)
                    self._log.report()
                    self._save_evaluate_and_preview(due)
                if self._is_over:
                    break
        finally:
            self._prefetcher.close()
            self._console.stop()
            self._profile.close(self._step)
            with self._goodput.during("saving"):
                self._home.push()
                self._checkpoints.wait()

    def _compiled_step(self) -> Any:
        """Wait for the compiled train step; None if no step is left, and no batches either."""
        if self._compiling is None:
            return None
        with self._goodput.during("compiling"):
            train_step = self._compiling.result()
        self._goodput.start_steps(self._first_step, lambda: self._prefetcher.seconds_waited)
        return train_step

    def _check_workdir(self, *, asks_bucket: bool = True) -> None:
        """Raise a UserError if the workdir was deleted under the run."""
        if self.writer:
            self._home.check(asks_bucket=asks_bucket)

    def _do_what_is_missing(self) -> None:
        """Do what is due at the step that the run starts at, or what a stop or kill cut off there.

        A checkpoint is saved before the evaluation and the preview of its step, so a run that
        resumes may have to make up for them.
        """
        due = self._evaluations.missing(self._first_step, self._schedule.at(self._first_step))
        if due.preview:
            self._previews.drop(self._first_step)
            self._previews.compile_ahead(all_params(self._state))
        self._save_evaluate_and_preview(due._replace(checkpoint=False, stop=self._stop.requested()))

    def _save_evaluate_and_preview(self, due: Due) -> None:
        """Do what is due after the current step besides logging, unless a stop comes between."""
        self._check_workdir()
        with self._goodput.during("saving"):
            if due.checkpoint or self._owes_checkpoint:
                self._save(even_if_bad=due.stop or self._step == self._run.n_steps)
            self._stopped = due.stop or not (
                self._evaluate(due) and (not due.preview or self._preview())
            )
            if self._is_over and self._step > self._first_step and self._saved_step != self._step:
                self._save(even_if_bad=True)
            self._goodput.write(self._step)
            self._home.push()
        if due.evaluate or due.score:
            self._report.update()

    def _save(self, *, even_if_bad: bool) -> None:
        """Save the state; if the last steps were not finite, wait for one that is.

        Args:
            even_if_bad: Save in any case, because there may be no later step.
        """
        bad_streak = self._bad_steps.wait()
        if bad_streak and not even_if_bad:
            if not self._owes_checkpoint:
                self._console.line(
                    f"step {self._step}: not saved, because the last {bad_streak} steps were not "
                    "finite; the first step that is will be saved"
                )
            self._owes_checkpoint = True
            return
        self._owes_checkpoint = False
        # A run that resumes here has these lines.
        if self.writer:
            self.writer.sync()
        self._goodput.write(self._step)
        self._home.push()
        state = checkpointed_part(self._run, self._state)
        self._checkpoints.save(self._step, state, bad_streak=bad_streak)
        self._saved_step = self._step

    def _evaluate(self, due: Due) -> bool:
        """Measure what is due on unseen examples; return whether no stop came between."""
        if not (due.evaluate or due.score):
            return True
        params, stopped = all_params(self._state), self._stop.requested
        is_saved = self._saved_step == self._step
        with self._goodput.during("evaluating"):
            return self._evaluations(params, self._step, due, stopped, is_saved=is_saved)

    def _preview(self) -> bool:
        """Complete the fixed prompts; return whether no stop came between."""
        with self._goodput.during("compiling"):
            self._previews.wait_for_programs()
        with self._goodput.during("evaluating"):
            return self._previews(all_params(self._state), self._step, self._stop.requested)

    def finish(self, began: float) -> None:
        """Say how the run ended, evaluate it if it is complete, and close all files.

        Args:
            began: The time at which the run began, as read from `time.perf_counter`.
        """
        if self._stopped:
            saved = "saved. The same command resumes."
            if self._saved_step is None:
                saved = "there is no checkpoint yet. The same command starts anew."
            self._console.line(f"stopped by a signal at step {self._step}; {saved}")
        else:
            line = f"trained to step {self._saved_step} in {time.perf_counter() - began:.0f} s"
            if self._step == self._first_step:
                line = f"no step is left to train: the run is at step {self._step}"
            if wait_share := self._throughput.data_wait_share():
                line += f"; the device waited for data {wait_share:.2%} of the time"
            self._console.line(line)
            if why := self._evaluations.why_over:
                self._console.line(f"stopped early at step {self._step}: {why}")
            if self._run.config.evaluation.examples:
                with self._goodput.during("evaluating"):
                    self._stopped = not final_evaluation(
                        self._run,
                        self._text_generator,
                        all_params(self._state),
                        self._step,
                        self._console,
                        self.writer,
                        self._home.local,
                        self._stop.requested,
                    )
        with self._goodput.during("saving"):
            self._checkpoints.close()
        self._goodput.write(self._step, is_complete=not self._stopped)
        if self.writer:
            self.writer.close()
            self._check_workdir()
            if not self._stopped:
                record_end(self._start, self._first_step, self._step, self._home)
        self._home.push()
