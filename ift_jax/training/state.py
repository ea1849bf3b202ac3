"""The state of a run, and how it is sharded.

The state is a plain dict of arrays:
    params: the trained parameters, float32.
    frozen: the parameters without gradient and moments, only where there are some; matrices are
        in the compute dtype, or quantized.
    frozen_sum: uint32, the checksum by which a resumed run recognizes `frozen`.
    opt_state: the optimizer's state.
    step: int32, the number of batches seen. It advances on a skipped step too, because it is the
        position in the data.
    skipped: int32, the number of steps skipped because loss or gradient was not finite.
    bad_streak: int32, how many steps in a row were skipped up to now.
    interval: float32 sums since the last logged step. They live in the state, and so in the
        checkpoint: a run that is killed between two log lines writes the same line again.

`ift_jax.training.resume` says what of this is saved in a checkpoint and restored from it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ift_jax.models.lora import with_magnitudes
from ift_jax.models.model import Model, Params, join
from ift_jax.sharding import rules
from ift_jax.sharding.checksums import tree_checksum
from ift_jax.training.loss_and_grads import zero_sums
from ift_jax.training.preference_step import zero_pair_sums

State = dict[str, Any]

_COUNTERS = ("step", "skipped", "bad_streak")


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    seed: int,
    n_tasks: int,
    trains_pairs: bool = False,
) -> State:
    """Return the state at step 0 with fresh parameters.

    Jit it with `state_shardings`, so that no device holds the whole state.
    """
    return state_of(model, model.init(jax.random.key(seed)), optimizer, n_tasks, trains_pairs)


def state_of(
    model: Model,
    params: Params,
    optimizer: optax.GradientTransformation,
    n_tasks: int,
    trains_pairs: bool = False,
) -> State:
    """Return the state at step 0 with the given parameters, trained and frozen ones together."""
    trained, frozen = model.split(params)
    frozen = model.cast_frozen(frozen)
    trained = with_magnitudes(trained, frozen, model.lora, model.config.dtype)
    state: State = {"params": trained, "opt_state": optimizer.init(trained)}
    state |= {name: jnp.zeros((), jnp.int32) for name in _COUNTERS}
    zeros = zero_pair_sums if trains_pairs else zero_sums
    state["interval"] = {**zeros(n_tasks, model.config), "steps": jnp.zeros((), jnp.float32)}
    if frozen:
        state |= {"frozen": frozen, "frozen_sum": tree_checksum(frozen)}
    return state


def all_params(state: State) -> Params:
    """Return the model's parameters, trained and frozen ones joined."""
    return join(state["params"], state.get("frozen", {}))


def moment_axes(model: Model, over_data: bool) -> Any:
    """Return the logical axes of the optimizer's moments, a tree like the trained parameters."""
    trained_axes, _ = model.split(model.logical_axes)
    axes_of_moment = rules.over_data if over_data else tuple
    return jax.tree.map(axes_of_moment, trained_axes, is_leaf=lambda node: isinstance(node, tuple))


def state_shardings(model: Model, mesh: Mesh, state: State, over_data: bool = False) -> State:
    """Return the sharding of every array of a state.

    Args:
        model: The model.
        mesh: The mesh.
        state: The state's arrays, or their shapes.
        over_data: Shard the optimizer's moments along `data` as well (ZeRO-1,
            arXiv:1910.02054); otherwise they are sharded as their parameters are.

    Returns:
        A tree like `state` with a `NamedSharding` at each leaf.
    """
    trained_axes, frozen_axes = model.split(model.logical_axes)
    replicated = NamedSharding(mesh, PartitionSpec())
    shardings = jax.tree.map(lambda _: replicated, state)
    shardings["params"] = rules.tree_shardings(mesh, trained_axes, state["params"])
    if "frozen" in state:
        shardings["frozen"] = rules.tree_shardings(mesh, frozen_axes, state["frozen"])
    moments = rules.tree_shardings(mesh, moment_axes(model, over_data), state["params"])
    shardings["opt_state"] = _opt_state_shardings(
        state["opt_state"], state["params"], moments, replicated
    )
    return shardings


def _opt_state_shardings(
    opt_state: Any, params: Params, moments: Any, replicated: NamedSharding
) -> Any:
    """Shard each moment like its parameter: the one whose path ends its own path.

    What has no parameter of the same path and shape is replicated: counters, and Adafactor's
    factors, which are a vector per matrix.
    """
    paths_and_params = jax.tree.leaves_with_path(params)
    by_path = {
        (path, param.shape): sharding
        for (path, param), sharding in zip(paths_and_params, jax.tree.leaves(moments), strict=True)
    }

    def sharding_of(path: Any, leaf: Any) -> NamedSharding:
        for start in range(len(path)):
            if sharding := by_path.get((path[start:], leaf.shape)):
                return sharding
        return replicated

    return jax.tree_util.tree_map_with_path(sharding_of, opt_state)
