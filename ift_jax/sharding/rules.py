"""The mesh and the one table from logical axis names to mesh axes.

Model code names what an axis *is* ("embed", "mlp", "batch"); this module alone knows which
mesh axis it is cut along. Mesh axes: `data` (replicated parameters), `fsdp` (parameters cut,
gathered for use), `tensor` (heads and hidden units cut), `sequence` (positions cut). On a large
TPU slice `fsdp` is two axes, the second (`fsdp_line`) along a line of the torus.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ift_jax.sharding.mesh import FSDP

# Logical axis -> mesh axes. A name that is not here is a mistake in our code and raises.
LOGICAL_AXIS_RULES: dict[str, tuple[str, ...]] = {
    # Parameters.
    "layers": (),
    "embed": FSDP,
    "embed_over_data": (*FSDP, "data"),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "norm": (),
    "lora": (),
    "relative_buckets": (),
    # Activations.
    "batch": ("data", *FSDP),
    "length": ("sequence",),
    "embed_act": (),
    "heads_act": ("tensor",),
    "kv_heads_act": ("tensor",),
    "mlp_act": ("tensor",),
    "vocab_act": ("tensor",),
}


def spec(axes: Sequence[str | None], shape: Sequence[int], mesh_shape: dict[str, int]) -> P:
    """The partition of an array whose axes carry these logical names.

    An axis is cut along as many of its mesh axes, from the first on, as divide its size: a small
    norm or a model with fewer key-value heads than tensor shards is replicated, not refused.
    """
    entries: list[Any] = []
    for name, size in zip(axes, shape, strict=True):
        rule = LOGICAL_AXIS_RULES[name] if name else ()
        cut = tuple(axis for axis in rule if mesh_shape[axis] > 1)
        while size % math.prod(mesh_shape[axis] for axis in cut):
            cut = cut[:-1]
        entries.append((cut if len(cut) > 1 else cut[0]) if cut else None)
    return P(*entries)


def divides(name: str, size: int) -> bool:
    """Whether the mesh cuts an axis of this logical name and size evenly (or not at all)."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or size % math.prod(mesh.shape[a] for a in LOGICAL_AXIS_RULES[name]) == 0


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains `x` to the partition of these logical axes; identity where there is no mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes, x.shape, dict(mesh.shape)))


def over_data(axes: Sequence[str | None]) -> tuple[str | None, ...]:
    """The axes of optimizer state that is cut along `data`, too, where its parameter is not."""
    return tuple("embed_over_data" if name == "embed" else name for name in axes)


def platform() -> str:
    """Of the mesh's devices (not always this machine's) or else JAX's: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def on_shards(
    function: Callable[..., jax.Array],
    out_axes: tuple[str | None, ...],
    *args: tuple[tuple[str | None, ...], Any],
) -> jax.Array:
    """Calls `function` on each device's parts of the arguments: pairs of logical axes and arrays.

    For kernels that the compiler cannot cut by itself. An argument may be a tree of arrays with
    the same axes. `function` must keep the axes of the output cut as those of the first
    argument are; where there is no mesh, it is called on the whole.
    """
    mesh, trees = jax.sharding.get_abstract_mesh(), [tree for _, tree in args]
    if mesh.empty or mesh.size == 1:
        return function(*trees)
    of = lambda names, a: spec(names, a.shape, dict(mesh.shape))  # noqa: E731
    specs = tuple(jax.tree.map(functools.partial(of, names), tree) for names, tree in args)
    cut_of = dict(zip(args[0][0], specs[0], strict=True))
    out = P(*(cut_of.get(name) for name in out_axes))
    return jax.shard_map(function, in_specs=specs, out_specs=out, check_vma=False)(*trees)


def whole_length(tree: Any, axis: int, length: int) -> Any:
    """Inside `on_shards`: gathers the positions of all devices; the gradient is summed and cut."""
    gather = functools.partial(jax.lax.all_gather, axis_name="sequence", axis=axis, tiled=True)
    return jax.tree.map(lambda a: a if a.shape[axis] == length else gather(a), tree)


def batch_shards(batch: int) -> int:
    """Into how many rows a batch may be merged without moving data; 0: not at all."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    shards = math.prod(mesh.shape[axis] for axis in LOGICAL_AXIS_RULES["batch"])
    return shards if mesh.shape["sequence"] == 1 and batch % shards == 0 else 0


def tree_shardings(mesh: Mesh, logical_axes: Any, shapes: Any) -> Any:
    """Shardings of a tree of arrays from the tree of their logical axes (tuples of names)."""
    of = lambda leaf, axes: NamedSharding(mesh, spec(axes, leaf.shape, dict(mesh.shape)))  # noqa: E731
    return jax.tree.map(of, shapes, logical_axes)


def batch_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """The sharding of one array of a batch: by rows, and by positions where it has them."""
    return NamedSharding(mesh, spec(("batch", "length")[: len(shape)], shape, dict(mesh.shape)))


def put_batch(mesh: Mesh, shapes: dict[str, tuple[int, ...]], rows: Any) -> dict[str, jax.Array]:
    """A global batch of which this process builds only the rows that its devices hold.

    `shapes` are global (rows first); `rows` gives {name: array} of a slice of rows.
    """
    n_rows = next(iter(shapes.values()))[0]
    indices = batch_sharding(mesh, (n_rows,)).addressable_devices_indices_map((n_rows,))
    slices = [index[0].indices(n_rows) for index in indices.values() if index]
    first, last = min(s[0] for s in slices), max(s[1] for s in slices)
    local = rows(slice(first, last))

    def shard(name: str, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(n_rows)
        return local[name][(slice(start - first, stop - first), *index[1:])]

    make = jax.make_array_from_callback
    return {
        name: make(shape, batch_sharding(mesh, shape), functools.partial(shard, name))
        for name, shape in shapes.items()
    }
