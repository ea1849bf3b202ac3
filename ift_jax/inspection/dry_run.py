"""`ift train --dry-run`: what a run is and what it would cost, or what it lacks here."""

from typing import Any

import jax

from ift_jax.config import files as config_file
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.models.model import trained_model
from ift_jax.training.console import Console
from ift_jax.training.optimizer import make_optimizer
from ift_jax.training.setup import prepare_run
from ift_jax.training.state import init_state

COMPILED = 3e9  # Parameters up to which a dry run compiles: larger runs are not for this machine.


def _recipe(config: Config) -> list[str]:
    """The numbers that papers give, and what the state takes."""
    data, model, train, o = config.data, config.model, config.train, config.optimizer
    lengths = " + ".join(f"{length:,}" for length in config.row_lengths if length)
    rate = f"{o.schedule} {o.learning_rate:g}, warm-up {o.warmup_steps or f'{o.warmup_ratio:.0%}'}"
    batch = f", {train.batch_tokens:,} tokens" if train.batch_tokens else ""
    lines = [
        f"recipe: {train.steps:,} steps" if train.steps else f"recipe: {train.epochs:g} epochs",
        f"  batch: {train.batch_size:,} rows of {lengths} tokens{batch}; "
        f"{'packed' if data.pack else 'an example a row'}",
        f"  optimizer: {o.name}, {rate}; loss: {config.loss.normalization}; dropout: "
        f"{model.dropout:g} {getattr(model, 'dropout_schedule', '')}".rstrip(),
    ]
    if model.vocab_size:
        made = trained_model(config)
        tx = make_optimizer(o, made.split(made.logical_axes)[0])
        state = jax.eval_shape(lambda: init_state(made, tx, 0, 1))
        gradients = sum(leaf.size for leaf in jax.tree.leaves(state["params"])) / 2**28
        held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        lines.append(
            f"  {made.n_params:,} parameters; with the optimizer's state {held / 2**30:,.1f} GiB "
            f"over all devices, and {gradients:,.1f} GiB of gradients"
        )
    return lines


def dry_run(config: Config, console: Console) -> None:
    """Prints the resolved config and what a run of it would cost, or what it lacks here.

    Memory is the compiler's own figure for the train step on this machine's devices: arguments
    (state and batch), temporaries and outputs that alias nothing, a device. Nothing is allocated.
    """
    try:
        run = prepare_run(config, console.line)
    except UserError:
        from ift_jax.inspection.missing import missing

        if not (lacks := missing(config)):
            raise
        console.line(
            config_file.to_json(config).rstrip(),
            *_recipe(config),
            *(f"missing: {what}" for what in lacks),
            "dry run: nothing was trained, and the run cannot start here without what is missing",
        )
        return
    plan = run.plan
    epochs = plan.n_examples / max(plan.order.n_examples, 1)
    tokens = plan.n_tokens + plan.n_encoder_tokens
    console.line(
        config_file.to_json(run.config).rstrip(),
        *_recipe(run.config),
        *run.describe(),
        f"an epoch: {plan.order.n_examples:,} examples, {tokens / epochs:,.0f} tokens, "
        f"{plan.n_trained_tokens / epochs:,.0f} trained, {plan.steps_per_epoch:,.1f} steps; "
        f"this run: {plan.n_steps:,} steps, {epochs:,.2f} epochs",
    )
    if run.program.model.n_params > COMPILED:
        console.line(
            "a model of this size is not compiled here: activations come on top of the state",
            "dry run: nothing was trained",
        )
        return
    memory: Any = run.program.lower().compile().memory_analysis()
    held, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    extra = memory.output_size_in_bytes - memory.alias_size_in_bytes
    console.line(
        f"memory a device (compiler's estimate): {(held + temporary + extra) / 2**20:,.0f} MiB = "
        f"state and batch {held / 2**20:,.0f} + temporaries {temporary / 2**20:,.0f} + "
        f"outputs {max(extra, 0) / 2**20:,.0f}",
        "dry run: nothing was trained",
    )
