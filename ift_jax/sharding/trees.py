"""Checksums and abstract shapes of trees of arrays."""

from typing import Any

import jax
import jax.numpy as jnp


def checksum(tree: Any) -> jax.Array:
    """A uint32 of all bits of a tree of float32 and bfloat16 arrays, however they are sharded."""
    total = jnp.zeros((), jnp.uint32)
    for i, leaf in enumerate(jax.tree.leaves(tree), start=1):
        bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        total += i * jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)
    return total


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes and dtypes of `tree` with `shardings`, as `restore` wants them."""
    of = lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s)  # noqa: E731
    return jax.tree.map(of, tree, shardings)
