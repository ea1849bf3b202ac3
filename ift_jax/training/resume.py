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
Config, data, tokenizer and template must be those of the interrupted run
(`ift_jax.checkpoint.run_description.check_same_run`); the mesh and the number of processes may
differ, because every array is restored into the shardings of the new run.
"""

import jax

from ift_jax.checkpoint.init_from import init_params
from ift_jax.checkpoint.manager import Checkpoints, check_frozen
from ift_jax.models.model import Params, build_model, join
from ift_jax.sharding import rules
from ift_jax.training.setup import Run
from ift_jax.training.state import State, state_of


def initial_state(run: Run) -> State:
    """Return the state at step 0, on the devices.

    Its parameters are fresh, or those that `model.init_from` names.
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

    base = init_params(build_model(config.model), config, shardings["params"], run.tokenizer)

    def state_from(base: Params) -> State:
        # Adapters start as in a run with fresh parameters. The other fresh parameters are
        # replaced, so the compiler removes their initialization.
        params = join(program.model.init(jax.random.key(config.seed)), base)
        return state_of(program.model, params, program.optimizer, program.n_tasks)

    return jax.jit(state_from, out_shardings=shardings, donate_argnums=0)(base)


def checkpointed_part(run: Run, state: State) -> State:
    """Return the part of the state that is saved: all but frozen weights of `init_from`."""
    if not run.config.model.init_from:
        return state
    return {name: part for name, part in state.items() if name != "frozen"}


def restore_state(run: Run, checkpoints: Checkpoints, step: int) -> State:
    """Restore the state of a checkpoint onto the run's devices.

    Raises:
        UserError: The checkpoint does not fit the config, or the frozen parameters that
            `model.init_from` names are not those that the run was trained on.
    """
    shapes = run.program.state_shapes
    state = checkpoints.restore(step, checkpointed_part(run, shapes))
    if state.keys() == shapes.keys():
        return state
    frozen = initial_state(run)["frozen"]
    check_frozen(frozen, state["frozen_sum"], run.config.model.init_from)
    return {**state, "frozen": frozen}
