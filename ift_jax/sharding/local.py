"""Functions that run on each device's part of their arguments.

The compiler cannot shard a Pallas kernel by itself, so attention runs inside `jax.shard_map`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from ift_jax.sharding.rules import partition_spec

Axes = tuple[str | None, ...]  # Logical names of an array's axes.


class Sharded(NamedTuple):
    """An argument and the logical axes by which it is sharded."""

    axes: Axes  # The axes of every array in the tree.
    tree: Any


def call_on_shards(
    function: Callable[..., Any],
    arguments: Sequence[Sharded],
    out_axes: Axes | list[Axes],
) -> Any:
    """Call `function` on each device's part of the arguments; on the whole ones without a mesh.

    Args:
        function: Takes as many trees as there are `arguments` and returns one array, or a tuple of
            arrays. The axes of its outputs must be sharded as those of the first argument are.
        arguments: The trees with their logical axes. The first is a single array.
        out_axes: The logical axes of the output, by the names of the first argument's; a list of
            them for a tuple of arrays.
    """
    trees = [argument.tree for argument in arguments]
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*trees)

    def spec_of(axes: tuple[str | None, ...], array: jax.Array) -> P:
        return partition_spec(axes, array.shape, dict(mesh.shape))

    in_specs = tuple(
        jax.tree.map(functools.partial(spec_of, argument.axes), argument.tree)
        for argument in arguments
    )
    mesh_axes_by_name = dict(zip(arguments[0].axes, in_specs[0], strict=True))

    def out_spec_of(axes: Axes) -> P:
        return P(*(mesh_axes_by_name.get(name) for name in axes))

    out_specs: Any
    if isinstance(out_axes, list):
        out_specs = tuple(out_spec_of(axes) for axes in out_axes)
    else:
        out_specs = out_spec_of(out_axes)
    run = jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    return run(*trees)


def gather_length(tree: Any, axis: int, length: int) -> Any:
    """Inside `call_on_shards`, gather the positions of all devices.

    In the backward pass the gradients are summed over the devices and sharded again.

    Args:
        tree: Arrays whose `axis` is that of positions.
        axis: The axis to gather.
        length: Its whole size; arrays that have it already are returned as they are.
    """

    def gather(array: jax.Array) -> jax.Array:
        if array.shape[axis] == length:
            return array
        return jax.lax.all_gather(array, axis_name="sequence", axis=axis, tiled=True)

    return jax.tree.map(gather, tree)
