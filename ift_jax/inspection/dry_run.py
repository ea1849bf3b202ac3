"""`ift train --dry-run`: what a run is and what it would cost, or what it lacks here."""

import os
from collections.abc import Sequence
from typing import Any

import jax

from ift_jax.checkpoint.init_from import resolve_init
from ift_jax.checkpoint.manager import saved_steps
from ift_jax.config import files as config_file
from ift_jax.config.files import standalone
from ift_jax.config.schema import Config
from ift_jax.config.stages import Stage, of_stage
from ift_jax.errors import UserError, counted
from ift_jax.io.paths import Workdir, exists
from ift_jax.models.model import trained_model
from ift_jax.training.console import Console
from ift_jax.training.optimizer import make_optimizer
from ift_jax.training.setup import Run, describe_training, prepare_run
from ift_jax.training.stages import check_begun, placed
from ift_jax.training.start import check_config, find_start, trained_tokenizer
from ift_jax.training.state import init_state

COMPILED_PARAMS = 3e9  # Larger models are not compiled: they are not for this machine.
_NOTHING_TRAINED = "dry run: nothing was trained"
_BYTES_PER_GRADIENT = 4  # float32.


def dry_run(
    config: Config, workdir: str, console: Console, *, allow_new_data: bool = False
) -> None:
    """Print the resolved config and what a run of it would cost, or what it lacks here.

    Nothing is trained, and no weight is allocated.

    Args:
        config: The run's config.
        workdir: Where the run would write its files.
        console: Where to print.
        allow_new_data: Whether the run could go on with other data than before.

    Raises:
        UserError: The config has a mistake and the run lacks nothing on this machine, or the
            workdir holds another run.
    """
    home = _look_at(workdir, console)
    if home:
        check_config(config, home, allow_new_data)
    try:
        run = prepare_run(config, console.line, trained_tokenizer(config, home) if home else "")
    except UserError:
        from ift_jax.inspection.missing import missing

        lacking = missing(config)
        if not lacking:
            raise
        _print_lacking(config, lacking, console)
        return
    start = _start(run, config, home, allow_new_data) if home else []
    console.verbatim(config_file.to_json(run.config).rstrip())
    console.line(
        *_recipe(run.config),
        *run.describe(),
        _epoch_and_run(run),
        _memory(run),
        *start,
        _NOTHING_TRAINED,
    )


def dry_run_stages(
    stages: Sequence[Stage], workdir: str, console: Console, *, allow_new_data: bool = False
) -> None:
    """Print what `dry_run` prints for each stage of a run.

    A stage whose predecessor has no checkpoint yet is planned as if it began where the first does.

    Raises:
        UserError: As `dry_run`, or the workdir holds a run of other stages.
    """
    home = _look_at(workdir, console)
    if home:
        check_begun(placed(stages, workdir), home)
    for index, (stage, real) in enumerate(zip(stages, placed(stages, workdir), strict=True)):
        folder = os.path.join(workdir, stage.name)
        console.line(f"stage {stage.name} ({index + 1} of {len(stages)})")
        config = real.config
        if index and not (home and saved_steps(config.model.init_from)):
            config = standalone(stages, index)
            console.line(
                f"stage {stages[index - 1].name} has no checkpoint yet: planned as if this stage "
                "began where the first one does"
            )
        try:
            dry_run(_resolved_if_there(config), folder, console, allow_new_data=allow_new_data)
        except UserError as error:
            raise of_stage(stage.name, error) from error


def _resolved_if_there(config: Config) -> Config:
    """Return the config with the fields of `model.init_from`, if that is on this machine."""
    start = config.model.init_from
    return resolve_init(config) if start and exists(start) else config


def _look_at(workdir: str, console: Console) -> Workdir | None:
    """Open a workdir for reading; None, with a line, if its bucket cannot be used from here."""
    try:
        return Workdir(workdir)
    except UserError as error:
        console.line(f"not looked at: {error}")
        return None


def _start(run: Run, config: Config, home: Workdir, allow_new_data: bool) -> list[str]:
    """Return lines on how the run would begin in its workdir.

    Raises:
        UserError: It may not.
    """
    start = find_start(run, config, home, allow_new_data)
    if start.step is None:
        return [*start.lines, f"the run would begin in {home.path}"]
    if start.step >= run.n_steps:
        return [*start.lines, f"the run in {home.path} is complete at step {start.step}"]
    return [*start.lines, f"the run would resume at step {start.step} from {home.path}"]


def _print_lacking(config: Config, lacking: Sequence[str], console: Console) -> None:
    console.verbatim(config_file.to_json(config).rstrip())
    console.line(
        *_recipe(config),
        *(f"missing: {line}" for line in lacking),
        f"{_NOTHING_TRAINED}, and the run cannot start here without what is missing",
    )


def _recipe(config: Config) -> list[str]:
    """Return the numbers that papers give, and what the state takes."""
    train = config.train
    length = counted(train.steps, "step") if train.steps else counted(train.epochs, "epoch")
    row = " + ".join(f"{tokens:,}" for tokens in config.row_lengths if tokens)
    tokens = f", {train.batch_tokens:,} tokens" if train.batch_tokens else ""
    packing = "packed" if config.data.pack else "one example per row"
    dropout = f"{config.model.dropout:g} {getattr(config.model, 'dropout_schedule', '')}".rstrip()
    lines = [
        f"recipe: {length}",
        f"  batch: {counted(train.batch_size, 'row')} of {row} tokens{tokens}; {packing}",
        f"  {describe_training(config)}",
        f"  loss: {_loss(config)}; dropout: {dropout}",
    ]
    if config.model.vocab_size:
        lines.append(_state_size(config))
    return lines


def _loss(config: Config) -> str:
    preference = config.preference
    if preference.trains_pairs:
        return f"{preference.loss} of pairs, beta {preference.beta:g}"
    return config.loss.normalization


def _state_size(config: Config) -> str:
    """Return the size of parameters, optimizer state and gradients, from shapes alone."""
    model = trained_model(config)
    optimizer = make_optimizer(config.optimizer, model.split(model.logical_axes)[0])
    state = jax.eval_shape(lambda: init_state(model, optimizer, 0, 1))
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    n_trained = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    gradient_bytes = n_trained * _BYTES_PER_GRADIENT
    return (
        f"  {model.n_params:,} parameters; with the optimizer's state {state_bytes / 2**30:,.1f} "
        f"GiB over all devices, and {gradient_bytes / 2**30:,.1f} GiB of gradients"
    )


def _epoch_and_run(run: Run) -> str:
    plan = run.plan
    epochs = plan.n_examples / max(plan.order.n_examples, 1)  # Whole windows are planned.
    trained = min(epochs, plan.n_steps / plan.steps_per_epoch)  # The last one may be cut.
    tokens = plan.n_tokens + plan.n_encoder_tokens
    return (
        f"an epoch: {counted(plan.order.n_examples, 'example')}, {tokens / epochs:,.0f} tokens, "
        f"{plan.n_trained_tokens / epochs:,.0f} trained, {plan.steps_per_epoch:,.1f} steps; "
        f"this run: {counted(plan.n_steps, 'step')}, {trained:,.2f} epochs"
    )


def _memory(run: Run) -> str:
    """Return the compiler's own figure for the train step, for each of this machine's devices.

    It counts arguments (state and batch), temporaries, and outputs that alias no argument.
    """
    if run.program.model.n_params > COMPILED_PARAMS:
        return "a model of this size is not compiled here: activations come on top of the state"
    memory: Any = run.program.lower().compile().memory_analysis()
    arguments = memory.argument_size_in_bytes
    temporaries = memory.temp_size_in_bytes
    outputs = max(memory.output_size_in_bytes - memory.alias_size_in_bytes, 0)
    total = arguments + temporaries + outputs
    return (
        f"memory per device (compiler's estimate): {total / 2**20:,.0f} MiB = "
        f"state and batch {arguments / 2**20:,.0f} + temporaries {temporaries / 2**20:,.0f} + "
        f"outputs {outputs / 2**20:,.0f}"
    )
