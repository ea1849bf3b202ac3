"""The state that a run starts from: what a checkpoint holds and what resuming restores.

A checkpoint holds the whole state (`ift_jax.training.state`), so all of this is restored:

* the trained parameters and the optimizer's state, bit for bit;
* the step, which is the position in the data: the order of the batches is a function of the
  stores, the config, the seed and the step, so there is no iterator to restore;
* the counters of skipped steps, and the sums of the current log interval.

Frozen parameters are in the checkpoint only if the run started from fresh ones. Otherwise they are
read again from `model.init_from`, and their checksum must equal the one in the checkpoint.

Nothing else needs restoring. Dropout depends on (seed, step). Lines of `metrics.jsonl` and
`samples.jsonl` that are later than the checkpoint are dropped, because they will be written again.
What config and data must be is decided before (`ift_jax.training.start`); the mesh and the number
of processes may differ, because every array is restored into the shardings of the new run.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ift_jax.checkpoint.manager import Checkpoints, check_frozen
from ift_jax.checkpoint.read_checkpoint import (
    UnreadableCheckpoint,
    check_misfits,
    open_arrays,
)
from ift_jax.io.paths import Workdir
from ift_jax.models.model import Params, join
from ift_jax.sharding import rules
from ift_jax.training.console import Console
from ift_jax.training.optimizer import make_optimizer
from ift_jax.training.setup import Run
from ift_jax.training.state import State, state_of


def initial_state(run: Run) -> State:
    """Return the state at step 0, on the devices.

    Its parameters are fresh, or those that `model.init_from` names. So is the optimizer's state
    with `optimizer.keep_state`.
    """
    program = run.program
    config = run.config
    shardings = program.state_shardings
    if not config.model.init_from:
        # This program runs once. A CPU spends longer compiling it than running it, so it is not
        # optimized there.
        on_cpu = rules.platform() == "cpu"
        options = {"xla_backend_optimization_level": 0} if on_cpu else {}
        make_fresh = jax.jit(
            lambda: program.fresh_state(), out_shardings=shardings, compiler_options=options
        )
        return make_fresh()

    # Imported here: all that reads the models of others, which fresh parameters need none of.
    from ift_jax.checkpoint.init_from import init_params

    base = init_params(program.model, config, shardings["params"], run.tokenizer)

    keeps = config.optimizer.keep_state
    made = {name: each for name, each in shardings.items() if not (keeps and name == "opt_state")}

    def state_from(base: Params) -> State:
        # Adapters start as in a run with fresh parameters. The other fresh parameters are
        # replaced, so the compiler removes their initialization.
        fresh, _ = program.model.split(program.model.init(jax.random.key(config.seed)))
        params = join(fresh, base)
        trains_pairs = config.preference.trains_pairs
        state = state_of(program.model, params, program.optimizer, program.n_tasks, trains_pairs)
        return {name: state[name] for name in made}

    state = jax.jit(state_from, out_shardings=made, donate_argnums=0)(base)
    return {**state, "opt_state": _kept_optimizer_state(run)} if keeps else state


def _kept_optimizer_state(run: Run) -> Any:
    """Return the optimizer's state of the run in `model.init_from`, in this run's shardings."""
    checkpoints = Checkpoints(run.config.model.init_from, read_only=True)
    step = checkpoints.steps()[-1]  # `init_params` has read the same checkpoint.
    shapes = run.program.state_shapes
    wanted = {"opt_state": shapes["opt_state"]}
    other = {"opt_state": _with_other_structure(run, shapes)["opt_state"]}
    opt_state = checkpoints.restore(step, wanted, other)["opt_state"]
    structure = jax.tree.structure(shapes["opt_state"])
    return jax.tree.unflatten(structure, jax.tree.leaves(opt_state))


def checkpointed_part(run: Run, state: State) -> State:
    """Return the part of the state that is saved: all but frozen weights of `init_from`."""
    if not run.config.model.init_from:
        return state
    return {name: part for name, part in state.items() if name != "frozen"}


def check_fits(run: Run, home: Workdir, steps: list[int], *, without_interval: bool) -> None:
    """Check that the newest checkpoint that says what it holds is one of this run.

    Args:
        run: The run.
        home: The workdir.
        steps: The steps of its checkpoints, in ascending order.
        without_interval: Whether the sums of the log interval are not restored.

    Raises:
        UserError: The checkpoint holds other arrays.
    """
    wanted = _restored_part(run, without_interval)
    for step in reversed(steps):
        folder = os.path.join(home.path, "checkpoints", str(step))
        try:
            saved = open_arrays(folder)
        except UnreadableCheckpoint:
            continue
        check_misfits(folder, saved, wanted, _with_other_structure(run, wanted))
        return


def restore_newest(
    run: Run, checkpoints: Checkpoints, begins_interval: Callable[[int], bool], console: Console
) -> tuple[int, State]:
    """Restore the newest checkpoint that is not damaged, and put damaged ones aside.

    Args:
        run: The run.
        checkpoints: Its checkpoints, at least one.
        begins_interval: Whether the run begins a log interval at a step, with other data than
            before.
        console: Is told about damaged checkpoints.

    Returns:
        The step and the state on the run's devices.

    Raises:
        UserError: No checkpoint can be read, or the newest one cannot and the config says that the
            run ends then, or the frozen parameters that `model.init_from` names are not those that
            the run was trained on.
    """
    damaged: list[int] = []
    steps = checkpoints.steps()
    for step in reversed(steps):
        try:
            state = _restore_state(run, checkpoints, step, begins_interval(step))
        except UnreadableCheckpoint as error:
            damaged.append(step)
            if run.config.train.damaged_checkpoint == "error" or len(damaged) == len(steps):
                raise
            console.line(f"warning: {error}")
            continue
        for of_damaged in damaged:
            moved_to = checkpoints.put_aside(of_damaged)
            console.line(
                f"warning: the run goes on from step {step}; the damaged checkpoint of step "
                f"{of_damaged} is now {moved_to}"
            )
        return step, state
    raise ValueError("there are no checkpoints")


def _restore_state(run: Run, checkpoints: Checkpoints, step: int, without_interval: bool) -> State:
    """Restore the state of a checkpoint onto the run's devices."""
    shapes = run.program.state_shapes
    wanted = _restored_part(run, without_interval)
    state = checkpoints.restore(step, wanted, _with_other_structure(run, wanted))
    structure = jax.tree.structure(shapes["opt_state"])
    state["opt_state"] = jax.tree.unflatten(structure, jax.tree.leaves(state["opt_state"]))
    if without_interval:
        state["interval"] = _zeros(shapes["interval"])
    if state.keys() == shapes.keys():
        return state
    frozen = initial_state(run)["frozen"]
    check_frozen(frozen, state["frozen_sum"], run.config.model.init_from)
    return {**state, "frozen": frozen}


def _restored_part(run: Run, without_interval: bool) -> State:
    """Return the shapes of what a run reads from a checkpoint."""
    saved = checkpointed_part(run, run.program.state_shapes)
    return {
        name: part for name, part in saved.items() if not (without_interval and name == "interval")
    }


def _with_other_structure(run: Run, wanted: State) -> State:
    """Return the same arrays in the structure that they have with or without weight decay.

    Weight decay adds a level to the optimizer's state but no array, and a resumed run may switch it
    on or off.
    """
    config = run.config.optimizer
    switched = dataclasses.replace(config, weight_decay=0.0 if config.weight_decay else 1.0)
    trained_axes, _ = run.program.model.split(run.program.model.logical_axes)
    optimizer = make_optimizer(switched, trained_axes)
    structure = jax.tree.structure(jax.eval_shape(optimizer.init, wanted["params"]))
    leaves = jax.tree.leaves(wanted["opt_state"])
    return {**wanted, "opt_state": jax.tree.unflatten(structure, leaves)}


def _zeros(shapes: Any) -> Any:
    """Return arrays of zeros with these shapes, dtypes and shardings."""
    shardings = jax.tree.map(lambda like: like.sharding, shapes)

    def make() -> Any:
        return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)

    return jax.jit(make, out_shardings=shardings)()
