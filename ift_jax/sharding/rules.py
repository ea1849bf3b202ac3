"""The one table from logical axis names to mesh axes, and what applies it to single arrays.

Model code names what an axis *is* ("embed", "mlp", "batch"); only this table knows which mesh axis
it is sharded along. The mesh axes are `data` (parameters are replicated), `fsdp` (parameters are
sharded, and gathered for use), `expert` (the experts of a mixture are sharded), `tensor` (heads and
hidden units are sharded) and `sequence` (positions are sharded). On a large TPU slice `fsdp` is two
axes; the second one (`fsdp_line`) follows a line of the torus.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ift_jax.sharding.mesh import FSDP

# Logical axis -> mesh axes. A name that is missing here is a mistake in our code and raises.
LOGICAL_AXIS_RULES: dict[str, tuple[str, ...]] = {
    # Parameters.
    "layers": (),
    "expert": ("expert",),
    "router_in": (),
    "router": (),
    "embed": FSDP,
    "embed_over_data": (*FSDP, "data"),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "layer_vocab": (),
    "layer_embed": (*FSDP, "tensor"),
    "layer_embed_over_data": (*FSDP, "tensor", "data"),
    "layer_inputs": (),
    "constant": (),
    "norm": (),
    "norm_heads": (),
    "conv": (),
    "lora": (),
    "relative_buckets": (),
    # Activations.
    "batch": ("data", *FSDP, "expert"),
    "batch_of_columns": ("data", "expert"),  # Beside an axis of columns, "layer_embed".
    "length": ("sequence",),
    "embed_act": (),
    "heads_act": ("tensor",),
    "kv_heads_act": ("tensor",),
    "mlp_act": ("tensor",),
    "vocab_act": ("tensor",),
}

_OVER_DATA = ("embed", "layer_embed")  # The axes that `over_data` shards further.

# Axes of parameters that only number equal parts: what is said of a matrix, or of the weights of a
# norm, holds for each part.
STACK_AXES = ("layers", "expert", "norm_heads")


def partition_spec(
    axes: Sequence[str | None], shape: Sequence[int], mesh_shape: dict[str, int]
) -> P:
    """The partition of an array whose axes carry these logical names (None: never sharded).

    An axis is sharded along as many of its mesh axes, from the first on, as divide its size: a
    small norm, or a model with fewer key-value heads than tensor shards, is replicated, not an
    error.
    """
    entries: list[Any] = []
    for name, size in zip(axes, shape, strict=True):
        rule = LOGICAL_AXIS_RULES[name] if name else ()
        mesh_axes = tuple(axis for axis in rule if mesh_shape[axis] > 1)
        while size % math.prod(mesh_shape[axis] for axis in mesh_axes):
            mesh_axes = mesh_axes[:-1]
        if not mesh_axes:
            entries.append(None)
        else:
            entries.append(mesh_axes if len(mesh_axes) > 1 else mesh_axes[0])
    return P(*entries)


def divides(name: str, size: int) -> bool:
    """Whether the mesh shards an axis of this logical name and size evenly (or not at all)."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or size % math.prod(mesh.shape[a] for a in LOGICAL_AXIS_RULES[name]) == 0


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrain `x` to the partition of these logical axes; the identity without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, dict(mesh.shape)))


def batch_shards(batch: int) -> int:
    """How many devices share the rows of a batch, if merging rows and positions moves no data.

    Returns:
        The number of groups of whole rows, one per device (1 without a mesh); 0 if the length
        is sharded too, or if the devices do not divide the `batch` rows.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    shards = math.prod(mesh.shape[axis] for axis in LOGICAL_AXIS_RULES["batch"])
    return shards if mesh.shape["sequence"] == 1 and batch % shards == 0 else 0


def over_data(axes: Sequence[str | None]) -> tuple[str | None, ...]:
    """The axes of optimizer state that is also sharded along `data` (ZeRO-1)."""
    return tuple(f"{name}_over_data" if name in _OVER_DATA else name for name in axes)


def tree_shardings(mesh: Mesh, logical_axes: Any, shapes: Any) -> Any:
    """Shardings of a tree of arrays.

    Args:
        mesh: The device mesh.
        logical_axes: For each array, a tuple of logical names, one an axis.
        shapes: The same tree of anything with a `shape`.
    """

    def sharding(leaf: Any, axes: tuple[str | None, ...]) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(axes, leaf.shape, dict(mesh.shape)))

    return jax.tree.map(sharding, shapes, logical_axes)


def platform() -> str:
    """The platform that programs are compiled for: "cpu", "gpu" or "tpu".

    It is that of the mesh's devices, which need not be in this machine, or else JAX's default.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
