"""Abstract shapes of whole trees of arrays, with shardings."""

from typing import Any

import jax


def abstract(tree: Any, shardings: Any) -> Any:
    """The shapes and dtypes of `tree` as `jax.ShapeDtypeStruct`s with these `shardings`."""

    def with_sharding(leaf: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(with_sharding, tree, shardings)
