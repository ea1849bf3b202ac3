"""Whether a run may begin or go on in its workdir, and at which step.

All of this is decided before anything is written there. A resumed run must read what it read
before, by content (`ift_jax.checkpoint.run_inputs`), and its config must describe the same model
and order of batches (`ift_jax.checkpoint.same_run`).
"""

import dataclasses
import os
from collections.abc import Mapping

from ift_jax.checkpoint.manager import saved_steps
from ift_jax.checkpoint.run_description import (
    CONFIG_FILE,
    STAGES_FILE,
    TOKENIZER_FOLDER,
    RunRecord,
    read_config,
    save_description,
)
from ift_jax.checkpoint.run_inputs import Inputs, changed_data, changed_tokenizer, run_inputs
from ift_jax.checkpoint.same_run import changed_training, check_same_config, moved_start
from ift_jax.config.schema import Config
from ift_jax.errors import UserError, counted
from ift_jax.io.paths import Workdir
from ift_jax.text.tokenizers.load import load_tokenizer
from ift_jax.training.best_metric import check_best_metric
from ift_jax.training.early_stopping import EarlyStopping
from ift_jax.training.resume import check_fits
from ift_jax.training.setup import Run


@dataclasses.dataclass(frozen=True)
class Start:
    """How a run begins in its workdir.

    Attributes:
        config: The run's config, as it was given.
        reasons: Why its fields were chosen, as `save_description` takes it.
        step: The step of the newest checkpoint; None if there is none.
        record: What `run.json` says.
        inputs: What the run reads now.
        has_new_data: Whether that is something else than before.
        early_stopping: Has counted the evaluations until that step.
        has_all_steps: Whether no step is left to train.
        is_done: Whether the run is complete, scores included, so that nothing is to be done.
        lines: What the user should know.
    """

    config: Config
    reasons: Mapping[str, str] | None
    step: int | None
    record: RunRecord
    inputs: Inputs
    early_stopping: EarlyStopping
    has_new_data: bool = False
    has_all_steps: bool = False
    is_done: bool = False
    lines: tuple[str, ...] = ()

    def since(self, step: int) -> int:
        """Return the step since which a run that resumes at `step` reads its inputs."""
        return step if self.has_new_data else min(self.record.inputs_since, step)

    def describe_end(self) -> str:
        """Say that the run is complete."""
        if self.early_stopping.is_over:
            why = self.early_stopping.describe()
            return f"complete: it stopped early at step {self.step}, {why}"
        return f"complete at step {self.step}"

    def begins_interval(self, step: int) -> bool:
        """Whether the sums of a log interval, saved at `step`, belong to other data."""
        return 0 < step == self.since(step)


def check_config(config: Config, home: Workdir, allow_new_data: bool) -> None:
    """Compare a config with that of a workdir's run, before its data is prepared.

    Args:
        config: The config of the run that is about to begin.
        home: The workdir.
        allow_new_data: Whether the run may go on with other data.

    Raises:
        UserError: Another run is there; names the first field that differs.
    """
    if os.path.exists(os.path.join(home.local, STAGES_FILE)):
        raise UserError(
            f"--workdir {home.path}: is the folder of a run of stages; use another one for a run "
            "without stages"
        )
    before = read_config(home.local)
    if before is not None:
        check_same_config(
            home.path,
            before,
            config,
            knows_content=bool(RunRecord.read(home.local).inputs),
            allow_new_data=allow_new_data,
        )


def check_still_new(home: Workdir) -> None:
    """Raise a UserError if a run began in a workdir that was not there a moment ago."""
    if read_config(home.local) is not None:
        raise UserError(
            f"--workdir {home.path}: another run began here meanwhile; the same command resumes it"
        )


def trained_tokenizer(config: Config, home: Workdir) -> str:
    """Return the path of the tokenizer that a workdir's run trained; "" if it trained none yet."""
    if config.tokenizer.path or read_config(home.local) is None:
        return ""
    return os.path.join(home.path, TOKENIZER_FOLDER)


def find_start(
    run: Run,
    config: Config,
    home: Workdir,
    allow_new_data: bool,
    reasons: Mapping[str, str] | None = None,
) -> Start:
    """Decide how a run begins in its workdir, and write nothing.

    Args:
        run: The run, with its data prepared.
        config: Its config, as it was given.
        home: The workdir.
        allow_new_data: Whether the run may go on with other data.
        reasons: Why fields of the config were chosen.

    Raises:
        UserError: The workdir's run read other data, its checkpoints do not fit, or it is complete
            and was trained by other settings.
    """
    mixtures = {"train": run.train, "eval": run.eval}
    if run.heldout:
        mixtures["heldout"] = run.heldout
    check_best_metric(run.config, {"eval": run.eval, "heldout": run.heldout})
    inputs = run_inputs(run.config, run.tokenizer, mixtures)
    steps = saved_steps(home.path)
    before = read_config(home.local)
    if before is None:
        if steps:
            raise UserError(
                f"{home.path}: has checkpoints but no {CONFIG_FILE}, which says what they are of; "
                "use another --workdir"
            )
        return Start(config, reasons, None, RunRecord(), inputs, EarlyStopping(config.train))

    record = RunRecord.read(home.local)
    step = steps[-1] if steps else None
    changes = _changes(run, home, record, inputs)
    if step and (before.train.steps > 0) != (config.train.steps > 0):
        if run.plan.depends_on_unit(min(step, run.n_steps)):
            changes.append(
                f"the run had {_length(before)}, now it has {_length(config)}: the last batch of "
                "each epoch is filled up only in a run of epochs, so other batches follow"
            )
    _refuse(changes, home, allow_new_data)
    has_new_data = bool(changes)
    if step is not None:
        if step >= run.n_steps:
            _check_complete(before, config, home, step, run.n_steps)
        check_fits(run, home, steps, without_interval=has_new_data)
    lines = [*(f"going on with other data: {change}" for change in changes)]
    lines.append(moved_start(before, config))
    if not record.inputs:
        lines.append(f"{home.path}: does not say what data its run began with; taken as the same")
    early_stopping = EarlyStopping.of_run(config.train, home.local, step or 0)
    has_all_steps = step is not None and (step >= run.n_steps or early_stopping.is_over)
    is_done = (
        record.finished_at == step is not None
        and has_all_steps
        and before.evaluation == config.evaluation
    )
    return Start(
        config,
        reasons,
        step,
        record,
        inputs,
        early_stopping,
        has_new_data,
        has_all_steps,
        is_done,
        tuple(filter(None, lines)),
    )


def record_start(start: Start, step: int, run: Run, home: Workdir) -> None:
    """Write what a workdir says about its run, now that everything is checked.

    Args:
        start: How the run begins.
        step: The step that it begins at, which is an earlier one if checkpoints are damaged.
        run: The run.
        home: The workdir, written by this process.
    """
    finished_at = start.record.finished_at
    _record(start, step, finished_at if finished_at == step else None).write(home.local)
    save_description(home.local, start.config, run.tokenizer, start.reasons)
    home.push()
    home.watch()


def record_end(start: Start, first_step: int, step: int, home: Workdir) -> None:
    """Write that a run, which began at `first_step`, is complete at `step`, scores included."""
    _record(start, first_step, step).write(home.local)


def _record(start: Start, first_step: int, finished_at: int | None) -> RunRecord:
    return RunRecord(start.inputs, start.since(first_step), finished_at)


def _changes(run: Run, home: Workdir, record: RunRecord, inputs: Inputs) -> list[str]:
    """Return how the data of a run has changed.

    Raises:
        UserError: The tokenizer has changed, which no option allows.
    """
    before = record.inputs
    if not before:  # An earlier version wrote the tokenizer alone.
        own = load_tokenizer(os.path.join(home.local, TOKENIZER_FOLDER), run.config.tokenizer)
        before = run_inputs(run.config, own, {}) | {"template": inputs["template"]}
    if change := changed_tokenizer(before, inputs):
        own_path = os.path.join(home.path, TOKENIZER_FOLDER)
        raise UserError(
            f"--workdir {home.path}: {change}; use the run's own, "
            f"--config.tokenizer.path={own_path}, or another --workdir for another run"
        )
    return list(changed_data(before, inputs))


def _length(config: Config) -> str:
    train = config.train
    return f"train.steps={train.steps}" if train.steps else f"train.epochs={train.epochs:g}"


def _refuse(changes: list[str], home: Workdir, allow_new_data: bool) -> None:
    if changes and not allow_new_data:
        more = f" (and {counted(len(changes) - 1, 'more change')})" if len(changes) > 1 else ""
        raise UserError(
            f"--workdir {home.path}: {changes[0]}{more}; use another --workdir for another run, or "
            "--allow-new-data to go on with other data"
        )


def _check_complete(before: Config, now: Config, home: Workdir, step: int, n_steps: int) -> None:
    """Raise a UserError if a run that is complete was trained by other settings than these."""
    changed = changed_training(before, now)
    if not changed:
        return
    field, (old, new) = next(iter(changed.items()))
    raise UserError(
        f"config.{field}: {new!r}, but the run in {home.path} was trained to step {step} with "
        f"{old!r}, and this config ends at step {n_steps}: nothing was done; raise train.steps or "
        "train.epochs to go on, or use another --workdir"
    )
