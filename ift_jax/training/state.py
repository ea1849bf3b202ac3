"""The state of a run: fresh, from given parameters, and its shardings."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ift_jax.models.model import Model, join
from ift_jax.sharding import rules
from ift_jax.sharding.trees import checksum

State = dict[str, Any]


def init_state(model: Model, tx: optax.GradientTransformation, seed: int, n_tasks: int) -> State:
    """A fresh state; jit it with `state_shardings` so that no device holds it whole."""
    return state_of(model, model.init(jax.random.key(seed)), tx, n_tasks)


def state_of(model: Model, params: Any, tx: optax.GradientTransformation, n_tasks: int) -> State:
    """The state at step 0 of these parameters, all of the model's."""
    params, frozen = model.split(params)
    frozen = model.frozen_form(frozen)
    names = ("loss", "nll", "z_loss", "correct", "weight", "trained", "tokens", "steps")
    interval = {name: jnp.zeros((), jnp.float32) for name in names}
    interval |= {name: jnp.zeros(n_tasks, jnp.float32) for name in ("task_nll", "task_weight")}
    counters = {name: jnp.zeros((), jnp.int32) for name in ("step", "skipped", "bad_streak")}
    state = {"params": params, "opt_state": tx.init(params), **counters, "interval": interval}
    return state | ({"frozen": frozen, "frozen_sum": checksum(frozen)} if frozen else {})


def all_params(state: State) -> Any:
    """The parameters of `model` that a state holds, the frozen ones among them."""
    return join(state["params"], state.get("frozen", {}))


def _moment_axes(model: Model, over_data: bool) -> Any:
    """The logical axes of the trained parameters' moments."""
    axes = model.split(model.logical_axes)[0]
    of = rules.over_data if over_data else tuple
    return jax.tree.map(of, axes, is_leaf=lambda node: isinstance(node, tuple))


def state_shardings(model: Model, mesh: Mesh, state: State, over_data: bool = False) -> State:
    """Shardings like `state` (arrays or shapes): the optimizer's moments as their parameters.

    With `over_data` they are cut along `data`, too (ZeRO-1, arXiv:1910.02054).
    """
    axes = dict(zip(("params", "frozen"), model.split(model.logical_axes), strict=True))
    params = rules.tree_shardings(mesh, axes["params"], state["params"])
    moments = rules.tree_shardings(mesh, _moment_axes(model, over_data), state["params"])
    replicated = NamedSharding(mesh, PartitionSpec())
    leaves = jax.tree.leaves_with_path(state["params"])
    by_path = {
        (path, leaf.shape): sharding
        for (path, leaf), sharding in zip(leaves, jax.tree.leaves(moments), strict=True)
    }

    def moment(path: Any, leaf: Any) -> NamedSharding:
        # Replicated: counters, and Adafactor's factors, a vector a matrix.
        ends = (by_path.get((path[start:], leaf.shape)) for start in range(len(path)))
        return next(filter(None, ends), replicated)

    shardings = jax.tree.map(lambda _: replicated, state)
    shardings["params"] = params
    if "frozen" in state:
        shardings["frozen"] = rules.tree_shardings(mesh, axes["frozen"], state["frozen"])
    shardings["opt_state"] = jax.tree_util.tree_map_with_path(moment, state["opt_state"])
    return shardings
