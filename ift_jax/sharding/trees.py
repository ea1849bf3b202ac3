"""Functions of whole trees of arrays: a checksum, and abstract shapes with shardings."""

from typing import Any

import jax
import jax.numpy as jnp


def checksum(tree: Any) -> jax.Array:
    """A uint32 scalar over all bits of a tree of float32 and bfloat16 arrays.

    It does not depend on how the arrays are sharded: integer sums are exact in any order.
    """
    total = jnp.zeros((), jnp.uint32)
    for i, leaf in enumerate(jax.tree.leaves(tree), start=1):
        bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        total += i * jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)
    return total


def abstract(tree: Any, shardings: Any) -> Any:
    """The shapes and dtypes of `tree` as `jax.ShapeDtypeStruct`s with these `shardings`."""

    def with_sharding(leaf: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(with_sharding, tree, shardings)
