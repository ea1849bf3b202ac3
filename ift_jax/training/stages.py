"""A run of stages: each is a run of its own, and begins from the checkpoint of the one before.

A stage has a folder in the workdir, with everything that a run writes; `stages.json` beside the
folders says what the stages are. What is resumed, and what is refused, is decided by the rules of
single runs (`ift_jax.training.start`), and by two more: a stage that is complete is not touched
again, and it may not be trained differently once the next one has begun from it.
"""

import dataclasses
import os
from collections.abc import Sequence

import jax
from jax.experimental import multihost_utils

from ift_jax.checkpoint.init_from import resolve_init
from ift_jax.checkpoint.run_description import RunRecord, read_config, read_stages, save_stages
from ift_jax.checkpoint.same_run import changed_training, check_same_config
from ift_jax.config.schema import Config
from ift_jax.config.stages import KEY, Stage, of_stage
from ift_jax.errors import UserError
from ift_jax.io.outputs import check_workdir
from ift_jax.io.paths import Workdir, displayed
from ift_jax.io.write_errors import write_errors
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.training.console import Console
from ift_jax.training.loop import train


def train_stages(
    stages: Sequence[Stage], workdir: str, console: Console, *, allow_new_data: bool = False
) -> bool:
    """Train stage after stage, from the first one that is not complete.

    Args:
        stages: The stages.
        workdir: The folder of their workdirs, local or in a bucket.
        console: Where to print.
        allow_new_data: Whether the stage that is resumed may go on with other data than it began
            with.

    Returns:
        Whether all stages are complete; False if a signal asked to stop.

    Raises:
        UserError: As `train`, or a stage that the next one began from would be another one now.
    """
    check_workdir(workdir)
    stages = placed(stages, workdir)
    home = Workdir(workdir, writes=jax.process_index() == 0)
    n_begun = check_begun(stages, home)
    _prepare_ahead(stages, n_begun, console)

    def record() -> None:
        """Write what the stages are, now that the one that is next was accepted."""
        if jax.process_index() == 0:
            with write_errors(workdir):
                os.makedirs(home.local, exist_ok=True)
            save_stages(home.local, stages)
            home.push()

    for index, stage in enumerate(stages):
        folder = os.path.join(workdir, stage.name)
        title = f"stage {stage.name} ({index + 1} of {len(stages)})"
        finished_at = RunRecord.read(Workdir(folder).local).finished_at
        if index < n_begun - 1 and finished_at is not None:
            console.line(f"{title}: complete at step {finished_at}, in {displayed(folder)}")
            continue
        console.line(f"{title}: {displayed(folder)}")
        try:
            config = resolve_init(stage.config)
            is_complete = train(
                config, folder, console, allow_new_data=allow_new_data, on_accepted=record
            )
        except UserError as error:
            raise _located(stage.name, error) from error
        if not is_complete:
            return False
        if jax.process_count() > 1:  # The next stage reads what the first process wrote last.
            multihost_utils.sync_global_devices(f"end of stage {stage.name}")
    return True


def placed(stages: Sequence[Stage], workdir: str) -> list[Stage]:
    """Return the stages with the folder that each begins from."""
    starts = [os.path.join(workdir, stage.name) for stage in stages]
    later = [
        stage.starting_from(start) for stage, start in zip(stages[1:], starts[:-1], strict=True)
    ]
    return [*stages[:1], *later]


def check_begun(stages: Sequence[Stage], home: Workdir) -> int:
    """Compare the stages with those that have begun in a workdir.

    Args:
        stages: The stages, as `placed` returns them.
        home: The folder of their workdirs.

    Returns:
        How many of them have begun.

    Raises:
        UserError: They are others, or one that the next began from is not what it was.
    """
    before = [stage.name for stage in read_stages(home.local)]
    if not before and read_config(home.local) is not None:
        raise UserError(
            f"--workdir {home.path}: is the workdir of a run without stages; use another one"
        )
    homes = [Workdir(os.path.join(home.path, name)) for name in before]
    begun = [read_config(each.local) for each in homes]
    n_begun = next((i for i, config in enumerate(begun) if config is None), len(begun))
    names = [stage.name for stage in stages]
    if names[:n_begun] != before[:n_begun]:
        raise UserError(
            f"config.{KEY}: the run in {home.path} has begun the stages "
            f"{', '.join(before[:n_begun])}, now they are {', '.join(names)}; use another "
            "--workdir for another run"
        )
    for index in range(n_begun - 1):
        was = begun[index]
        assert was is not None
        _check_left(stages[index], was, homes[index], names[index + 1])
    return n_begun


def _check_left(stage: Stage, before: Config, home: Workdir, following: str) -> None:
    """Raise a UserError if a stage that another one began from is to be trained differently."""
    try:
        now = resolve_init(stage.config)
        check_same_config(home.path, before, now, knows_content=True)
    except UserError as error:
        raise _located(stage.name, error) from error
    for field, (old, new) in changed_training(before, now).items():
        raise UserError(
            f"config.{KEY}.{stage.name}.{field}: {new!r}, but stage {following} began from the end "
            f"of this stage, which was trained with {old!r}; use another --workdir for another run"
        )


def _prepare_ahead(stages: Sequence[Stage], n_begun: int, console: Console) -> None:
    """Prepare the data of stages that have not begun, so that mistakes in it end no long run.

    It needs the tokenizer, so nothing is done if the first stage is about to train one.
    """
    tokenizer = stages[0].config.tokenizer
    if not tokenizer.path:
        return
    for stage in stages[max(n_begun, 1) :]:
        config = stage.config
        if not config.tokenizer.path:
            config = dataclasses.replace(config, tokenizer=tokenizer)
        parts = ["train", "eval", *(["heldout"] if config.data.heldout_mixture else [])]
        for which in parts:
            try:
                open_or_prepare(config, which, log=console.line)
            except UserError as error:
                raise _located(stage.name, error) from error


def _located(name: str, error: UserError) -> UserError:
    """Return an error with the name of its stage, unless it is one of the machine."""
    if type(error) is not UserError:
        return error
    located = of_stage(name, error)
    return UserError(f"stage {name}: {error}") if str(located) == str(error) else located
