"""Batches on the devices of a mesh: each process builds only the rows that its devices hold."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ift_jax.sharding.rules import partition_spec


def batch_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """The sharding of one array of a batch: sharded by rows, and by positions if it has them."""
    axes = ("batch", "length")[: len(shape)]
    return NamedSharding(mesh, partition_spec(axes, shape, dict(mesh.shape)))


def put_batch(
    mesh: Mesh,
    shapes: Mapping[str, tuple[int, ...]],
    build_rows: Callable[[slice], Mapping[str, np.ndarray]],
) -> dict[str, jax.Array]:
    """Build a global batch, each process only the rows that its devices hold.

    Args:
        mesh: The device mesh.
        shapes: The global shape of each array; the first axis is that of rows.
        build_rows: Returns the arrays of a slice of the global rows. It is called once.
    """
    n_rows = next(iter(shapes.values()))[0]
    row_indices = batch_sharding(mesh, (n_rows,)).addressable_devices_indices_map((n_rows,))
    ranges = [index[0].indices(n_rows) for index in row_indices.values() if index]
    first = min(start for start, _, _ in ranges)
    last = max(stop for _, stop, _ in ranges)
    local_rows = build_rows(slice(first, last))

    def make_array(name: str, shape: tuple[int, ...]) -> jax.Array:
        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # Only asked for the devices of this process.
            start, stop, _ = index[0].indices(n_rows)
            return local_rows[name][(slice(start - first, stop - first), *index[1:])]

        return jax.make_array_from_callback(shape, batch_sharding(mesh, shape), shard)

    return {name: make_array(name, shape) for name, shape in shapes.items()}
