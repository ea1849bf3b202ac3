"""A stack of layers: how it is made, and how it is run.

For training, all layers of a kind are one module whose parameters have a leading axis of layers,
and `jax.lax.scan` runs it, so that compile time does not grow with depth. Where layers are of
several kinds (softmax and linear attention), each kind is a stack, and the scan runs over periods:
"LLLFLLLF" are two steps of three linear layers and a full one. For decoding, which reads every
weight for every token, they are a list of modules.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from ift_jax.models.layers import KEYS_AT_ONCE, Keys, keys_of_weights
from ift_jax.models.remat import CHECKPOINT_POLICIES, LAYER_INPUT, chosen_policy


def numbers_by_kind(kinds: Sequence[str]) -> dict[str, list[int]]:
    """The numbers of the layers of each kind, given the kinds of all layers."""
    return {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in dict.fromkeys(kinds)}


def stack_layers(
    make_layer: Callable[[Keys, str], Any], kinds: Sequence[str], keys: Keys, stacked: bool
) -> Any:
    """Make layers.

    Args:
        make_layer: Makes one layer from its random keys and its kind.
        kinds: The kind of each layer.
        keys: The next one is split for the layers.
        stacked: Whether to return one module whose parameters have a leading axis of layers (of
            several kinds: an `nnx.Dict` of them by kind), or an `nnx.List` of modules.
    """
    layer_keys = jax.random.split(next(keys), (len(kinds), KEYS_AT_ONCE))

    def layer(keys_W: jax.Array, kind: str) -> Any:
        return make_layer(keys_of_weights(keys_W), kind)

    if not stacked:
        return nnx.List([layer(layer_keys[i], kind) for i, kind in enumerate(kinds)])

    def stack(kind: str, keys_of_kind: jax.Array) -> Any:
        return nnx.vmap(lambda keys_W: layer(keys_W, kind))(keys_of_kind)

    by_kind = numbers_by_kind(kinds)
    if len(by_kind) == 1:
        return stack(kinds[0], layer_keys)
    return nnx.Dict(
        {kind: stack(kind, layer_keys[np.array(of_kind)]) for kind, of_kind in by_kind.items()}
    )


def unstacked_paths(
    path: tuple[Any, ...], n_layers: int, kinds: Sequence[str]
) -> list[tuple[Any, ...]]:
    """The paths in a list of layers of what a stacked parameter holds.

    Args:
        path: That of the stacked parameter: (..., "layers", ...) or (..., "layers", kind, ...).
        n_layers: The size of its axis of layers.
        kinds: The kind of each layer; empty if there is one kind.
    """
    at = path.index("layers") + 1
    by_kind = numbers_by_kind(kinds)
    if len(by_kind) < 2:
        return [(*path[:at], i, *path[at:]) for i in range(n_layers)]
    return [(*path[:at], i, *path[at + 1 :]) for i in by_kind[path[at]]]


def traced_once(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call(layer, *arguments)`, traced once for all layers of the same structure.

    Layers in a list differ in the values of their parameters alone, but each would be traced and
    lowered for itself: for a deep model that takes half as long as its compilation. The compiler
    inlines the calls, so that the program is the same.

    Args:
        call: Applies a layer; it may not change it.
    """

    @functools.partial(jax.jit, static_argnums=0)
    def run(graphdef: Any, params: Any, *arguments: Any) -> Any:
        return call(nnx.merge(graphdef, params), *arguments)

    return lambda layer, *arguments: run(*nnx.split(layer), *arguments)


def part_of_stack(layers: Any, kinds: Sequence[str], first: int, stop: int) -> Any:
    """The layers from number `first` up to `stop`, as `run_layers` takes them.

    Args:
        layers: What `stack_layers` returned, of several kinds.
        kinds: The kind of each layer; no kind may be on both sides of a border.
        first: The number of the first layer.
        stop: The number after that of the last layer.
    """
    if isinstance(layers, nnx.List):
        return [layers[i] for i in range(first, stop)]
    return {kind: layers[kind] for kind in dict.fromkeys(kinds[first:stop])}


def split_per_layer(per_layer: Any, n: int) -> tuple[Any, Any]:
    """Split a tree of arrays with a leading axis of layers after the first n."""
    leaves, structure = jax.tree.flatten(per_layer)
    parts = [_split(leaf, [n, len(leaf) - n]) for leaf in leaves]
    before = jax.tree.unflatten(structure, [part[0] for part in parts])
    return before, jax.tree.unflatten(structure, [part[1] for part in parts])


def run_layers(
    layers: Any,
    state: Any,
    call: Callable[[Any, Any, Any], tuple[Any, Any]],
    per_layer: Any,
    remat: str,
    kinds: Sequence[str] = (),
) -> tuple[Any, Any]:
    """Compute `state, output = call(layer, state, per_layer[i])` for every layer i.

    Args:
        layers: What `stack_layers` or `part_of_stack` returned: stacked layers are scanned, a list
            is unrolled.
        state: What the first layer gets: its input x, or a tree of arrays with x in it.
        call: Applies one layer.
        per_layer: What differs from layer to layer: a tree of arrays with a leading axis of layers.
        remat: What a scanned layer keeps for the backward pass, as the config names it
            (`remat.chosen_policy`).
        kinds: The kind of each layer, if `layers` are stacks of several kinds.

    Returns:
        The last state, and the outputs, whose arrays have a leading axis of layers.
    """
    if isinstance(layers, nnx.List | list):
        outputs = []
        for i, layer in enumerate(layers):
            of_layer = jax.tree.map(lambda leaf, i=i: leaf[i], per_layer)
            state, output = call(layer, state, of_layer)
            outputs.append(output)
        return state, _stack(outputs)
    if isinstance(layers, nnx.Dict | dict):
        return _run_periods(layers, state, call, per_layer, remat, kinds)
    graphdef, params = nnx.split(layers)
    body = _layer_body(graphdef, call, remat, in_scan=True)

    return jax.lax.scan(lambda state, xs: body(state, *xs), state, (params, per_layer))


def _layer_body(
    graphdef: Any,
    call: Callable[[Any, Any, Any], tuple[Any, Any]],
    remat: str,
    *,
    in_scan: bool,
) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """A layer as a function of (state, its parameters, its part of `per_layer`)."""

    def body(state: Any, layer_params: Any, of_layer: Any) -> tuple[Any, Any]:
        state = jax.tree.map(lambda leaf: checkpoint_name(leaf, LAYER_INPUT), state)
        return call(nnx.merge(graphdef, layer_params), state, of_layer)

    policy = chosen_policy(remat)
    if policy == "none":
        return body
    # Inside a scan the compiler cannot merge the two computations, so no barrier is needed.
    return jax.checkpoint(body, policy=CHECKPOINT_POLICIES[policy], prevent_cse=not in_scan)


def _run_periods(
    layers: Any,
    state: Any,
    call: Callable[[Any, Any, Any], tuple[Any, Any]],
    per_layer: Any,
    remat: str,
    kinds: Sequence[str],
) -> tuple[Any, Any]:
    """`run_layers` for stacks by kind: whole periods in a scan, then the layers that are left."""
    period = _period(kinds)
    n_periods = len(kinds) // period
    counts = {kind: len(numbers) for kind, numbers in numbers_by_kind(kinds[:period]).items()}
    graphdefs, stacks = {}, {}
    for kind, layers_of_kind in layers.items():
        graphdefs[kind], stacks[kind] = nnx.split(layers_of_kind)

    def run(
        state: Any, stacks: Any, per_layer: Any, kinds: Sequence[str], in_scan: bool
    ) -> tuple[Any, Any]:
        """Run layers whose parameters are the whole of these stacks."""
        outputs = []
        rest = {kind: iter(_split_layers(stack)) for kind, stack in stacks.items()}
        for kind, of_layer in zip(kinds, _split_layers(per_layer), strict=True):
            body = _layer_body(graphdefs[kind], call, remat, in_scan=in_scan)
            state, output = body(state, next(rest[kind]), of_layer)
            outputs.append(output)
        return state, _stack(outputs)

    def periods_of(tree: Any, count: int) -> Any:
        """The layers of whole periods, with axes of periods and of layers."""

        def reshape(leaf: Any) -> Any:
            return leaf[: n_periods * count].reshape(n_periods, count, *leaf.shape[1:])

        return jax.tree.map(reshape, tree)

    if n_periods == 1:
        return run(state, stacks, per_layer, kinds, in_scan=False)
    in_periods = {kind: periods_of(stack, counts[kind]) for kind, stack in stacks.items()}
    state, outputs = jax.lax.scan(
        lambda state, xs: run(state, *xs, kinds[:period], in_scan=True),
        state,
        (in_periods, periods_of(per_layer, period)),
    )
    outputs = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs)
    done = n_periods * period
    if done == len(kinds):
        return state, outputs
    stacks = {
        kind: jax.tree.map(lambda leaf, n=n_periods * counts[kind]: leaf[n:], stack)
        for kind, stack in stacks.items()
    }
    per_layer = jax.tree.map(lambda leaf: leaf[done:], per_layer)
    state, rest = run(state, stacks, per_layer, kinds[done:], in_scan=False)
    return state, jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, rest)


def _period(kinds: Sequence[str]) -> int:
    """After how many layers the kinds repeat; what is left at the end may be part of a period."""
    n = len(kinds)
    return next(p for p in range(1, n + 1) if all(kinds[i] == kinds[i % p] for i in range(n)))


def _stack(outputs: list[Any]) -> Any:
    return jax.tree.map(lambda *of_layers: jnp.stack(of_layers), *outputs)


def _split_layers(tree: Any) -> list[Any]:
    """The parts of stacked layers."""
    leaves, structure = jax.tree.flatten(tree)
    n = len(leaves[0])
    parts = [[x[0] for x in _split(leaf, [1] * n)] for leaf in leaves]
    return [jax.tree.unflatten(structure, [leaf[i] for leaf in parts]) for i in range(n)]


def _split(leaf: Any, sizes: Sequence[int]) -> Sequence[jax.Array]:
    """Parts of an array along its first axis.

    Their gradients are concatenated; those of slices would be added up, each padded with zeros.
    """
    return jax.lax.split(jnp.asarray(leaf), sizes)
