"""From a config to everything that a run is made of, before any step; and what it would cost."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ift_jax import config_file, partitioning
from ift_jax.checkpoint.run_state import Checkpoints, abstract, check_frozen
from ift_jax.checkpoint.source import init_params
from ift_jax.config import Config
from ift_jax.data.batches import BatchPlan
from ift_jax.data.view import MixtureView
from ift_jax.errors import UserError
from ift_jax.models.definition import Model, build_model, join, resolve_vocab, trained_model
from ift_jax.text.tokenizers import Tokenizer
from ift_jax.training import step as step_lib
from ift_jax.training.console import Console
from ift_jax.training.optimizer import Schedule, make_optimizer, make_schedule
from tasks.preparation.request import open_or_prepare


@dataclasses.dataclass(frozen=True)
class Run:
    """What `prepare_run` resolves. `config.model.vocab_size` is filled in."""

    config: Config
    tokenizer: Tokenizer
    train: MixtureView
    eval: MixtureView
    heldout: MixtureView | None
    plan: BatchPlan
    mesh: Mesh
    model: Model
    tx: optax.GradientTransformation
    schedule: Schedule

    @functools.cached_property
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name -> shape, dtype and sharding of a global batch's arrays."""

        def whole(row: np.ndarray) -> jax.ShapeDtypeStruct:
            shape = (self.config.train.batch_rows, *row.shape[1:])
            sharding = partitioning.batch_sharding(self.mesh, shape)
            return jax.ShapeDtypeStruct(shape, row.dtype, sharding=sharding)

        return {name: whole(row) for name, row in self.plan.batch(0, slice(0, 1)).items()}

    def device_batch(self, step: int) -> dict[str, jax.Array]:
        """The batch of a step, each process building the rows that its devices hold."""
        shapes = {name: like.shape for name, like in self.batch_shapes.items()}
        return partitioning.put_batch(self.mesh, shapes, lambda rows: self.plan.batch(step, rows))

    def _fresh(self) -> step_lib.State:
        return step_lib.init_state(self.model, self.tx, self.config.seed, len(self.train.tasks))

    @functools.cached_property
    def state_shapes(self) -> step_lib.State:
        """Shape, dtype and sharding of the state's arrays."""
        shapes = jax.eval_shape(lambda: self._fresh())
        return abstract(shapes, step_lib.state_shardings(self.model, self.mesh, shapes))

    @property
    def _shardings(self) -> step_lib.State:
        return jax.tree.map(lambda leaf: leaf.sharding, self.state_shapes)

    def initial_state(self) -> step_lib.State:
        """The state at step 0, of fresh parameters or of those that `model.init_from` names."""
        shardings = self._shardings
        if not self.config.model.init_from:
            return jax.jit(lambda: self._fresh(), out_shardings=shardings)()
        plain = build_model(self.config.model)
        params = init_params(plain, self.config, shardings["params"], self.tokenizer)

        def make(params: Any) -> step_lib.State:
            # Adapters begin as in a run from nothing; of the other fresh ones none is computed.
            params = join(self.model.init(jax.random.key(self.config.seed)), params)
            return step_lib.state_of(self.model, params, self.tx, len(self.train.tasks))

        return jax.jit(make, out_shardings=shardings, donate_argnums=0)(params)

    def stored(self, state: step_lib.State) -> step_lib.State:
        """What of a state is in a checkpoint: not what `model.init_from` holds unchanged."""
        without = {"frozen"} if self.config.model.init_from else set()
        return {name: part for name, part in state.items() if name not in without}

    def restored_state(self, checkpoints: Checkpoints, step: int) -> step_lib.State:
        """The state of a checkpoint; UserError where the frozen parameters are other ones now."""
        state = checkpoints.restore(step, self.stored(self.state_shapes))
        if state.keys() == self.state_shapes.keys():
            return state
        frozen = self.initial_state()["frozen"]
        check_frozen(frozen, state["frozen_sum"], self.config.model.init_from)
        return state | {"frozen": frozen}

    def jit_train_step(self) -> Any:
        """The compiled-on-first-use train step, its state donated."""
        train_step = step_lib.make_train_step(
            self.model, self.tx, self.schedule, self.config, len(self.train.tasks)
        )
        return jax.jit(train_step, donate_argnums=0, out_shardings=(self._shardings, None))

    def describe(self) -> list[str]:
        """A few lines on what is about to run."""
        plan, config = self.plan, self.config
        mesh = " x ".join(f"{axis} {size}" for axis, size in self.mesh.shape.items() if size > 1)
        return [
            f"model: {config.model.architecture}, {self.model.n_params:,} parameters, "
            f"{config.model.dtype}; mesh: {mesh or '1 device'}",
            f"data: {len(self.train.tasks)} tasks, {sum(map(len, self.train.stores)):,} examples, "
            f"{plan.steps_per_epoch:,.1f} steps an epoch, fill {plan.fill:.1%}; {plan.n_steps:,} "
            f"steps of {config.train.batch_rows} rows",
        ]


def prepare_run(config: Config, log: Callable[[str], None]) -> Run:
    """Opens or prepares the stores, plans the order, and defines model and optimizer.

    Nothing is put on a device yet.

    Raises:
        UserError: anything in the config or data that is wrong.
    """
    tokenizer, train = open_or_prepare(config, "train", log=log)
    if config.model.architecture == "decoder":
        from tasks.preparation.examples import ExampleFormatter
        from tasks.preparation.lint import lint

        for finding in lint(ExampleFormatter.from_config(config, tokenizer)):
            if not finding.ok:
                raise UserError(
                    f"config.format.template: {finding.check}: {finding.detail}; all checks: "
                    "ift inspect --lint"
                )
    _, evaluation = open_or_prepare(config, "eval", log=log)
    heldout = None
    if config.data.heldout_mixture:
        _, heldout = open_or_prepare(config, "heldout", log=log)
    model_config = resolve_vocab(config.model, tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model_config)
    mesh = partitioning.make_mesh(config.mesh)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = config.train.batch_rows // config.train.microbatches
    if rows % shards:
        raise UserError(
            f"config.train.batch_rows: {rows} rows a microbatch do not divide over the "
            f"{shards} devices of the mesh axes data x fsdp"
        )
    plan, model = BatchPlan.of_config(config, train), trained_model(config)
    return Run(
        config=config, tokenizer=tokenizer, train=train, eval=evaluation, heldout=heldout,
        plan=plan, mesh=mesh, model=model, schedule=make_schedule(config.optimizer, plan.n_steps),
        tx=make_optimizer(config.optimizer, model.split(model.logical_axes)[0]),
    )  # fmt: skip


COMPILED = 3e9  # Parameters up to which a dry run compiles: larger runs are not for this machine.


def _recipe(config: Config) -> list[str]:
    """The numbers that papers give, and what the state takes."""
    data, model, train, o = config.data, config.model, config.train, config.optimizer
    lengths = f"{data.encoder_length:,} + {data.decoder_length:,}"
    lengths = f"{data.row_length:,}" if model.architecture == "decoder" else lengths
    rate = f"{o.schedule} {o.learning_rate:g}, warm-up {o.warmup_steps or f'{o.warmup_ratio:.0%}'}"
    batch = f", {train.batch_tokens:,} tokens" if train.batch_tokens else ""
    lines = [
        f"recipe: {train.steps:,} steps" if train.steps else f"recipe: {train.epochs:g} epochs",
        f"  batch: {train.batch_rows:,} rows of {lengths} tokens{batch}; "
        f"{'packed' if data.pack else 'an example a row'}",
        f"  optimizer: {o.name}, {rate}; loss: {config.loss.normalization}; dropout: "
        f"{model.dropout:g} {getattr(model, 'dropout_schedule', '')}".rstrip(),
    ]
    if model.vocab_size:
        made = trained_model(config)
        tx = make_optimizer(o, made.split(made.logical_axes)[0])
        state = jax.eval_shape(lambda: step_lib.init_state(made, tx, 0, 1))
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
        from tasks.preparation.missing import missing

        if not (lacks := missing(config)):
            raise
        console.line(
            config_file.to_json(config).rstrip(), *_recipe(config),
            *(f"missing: {what}" for what in lacks),
            "dry run: nothing was trained, and the run cannot start here without what is missing",
        )  # fmt: skip
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
    if run.model.n_params > COMPILED:
        console.line("a model of this size is not compiled here: activations come on top of the "
                     "state", "dry run: nothing was trained")  # fmt: skip
        return
    with jax.set_mesh(run.mesh):
        compiled = run.jit_train_step().lower(run.state_shapes, run.batch_shapes).compile()
    memory = compiled.memory_analysis()
    held, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    extra = memory.output_size_in_bytes - memory.alias_size_in_bytes
    console.line(
        f"memory a device (compiler's estimate): {(held + temporary + extra) / 2**20:,.0f} MiB = "
        f"state and batch {held / 2**20:,.0f} + temporaries {temporary / 2**20:,.0f} + "
        f"outputs {max(extra, 0) / 2**20:,.0f}",
        "dry run: nothing was trained",
    )
