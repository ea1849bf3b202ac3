"""The embedding lookup, and its gradient where the table is sharded over the lines of a TPU torus.

Shape suffixes: B rows, L positions, V vocabulary, D model width; G devices that share the batch.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ift_jax.sharding import rules
from ift_jax.sharding.fsdp import (
    gather_weight,
    is_sharded_in_lines,
    rows_by_device,
    scatter_gradient,
)

EMBEDDING_AXES = ("vocab", "embed")


def embed(table_VxD: jax.Array, tokens_BxL: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Look up the rows of the table: BxLxD in `dtype`. Token ids are trusted to be below V."""
    if is_sharded_in_lines(EMBEDDING_AXES, table_VxD.shape) and rules.batch_shards(len(tokens_BxL)):
        return _fsdp_embed(table_VxD, tokens_BxL, dtype)
    # The table is gathered over the width first: then the result is sharded by rows,
    # as wanted.
    return _look_up(gather_weight(table_VxD, EMBEDDING_AXES), tokens_BxL, dtype)


def _look_up(table_VxD: jax.Array, tokens_BxL: jax.Array, dtype: jnp.dtype) -> jax.Array:
    x_BxLxD = jnp.take(table_VxD, tokens_BxL, axis=0, mode="clip").astype(dtype)
    return rules.constrain(x_BxLxD, "batch", "length", "embed_act")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fsdp_embed(table_VxD: jax.Array, tokens_BxL: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`embed`, but each device sums its own gradient before the sums are added and sharded."""
    return _look_up(gather_weight(table_VxD.astype(dtype), EMBEDDING_AXES), tokens_BxL, dtype)


def _embed_forward(table: Any, tokens: Any, dtype: jnp.dtype) -> tuple[jax.Array, Any]:
    residuals = None
    if table.perturbed:  # A frozen table needs no gradient.
        empty_Vx0 = table.value[:, :0]  # Carries the vocabulary's size and the table's dtype.
        residuals = (empty_Vx0, tokens.value)
    return _fsdp_embed(table.value, tokens.value, dtype), residuals


def _embed_backward(dtype: jnp.dtype, residuals: Any, dx_BxLxD: jax.Array) -> tuple[Any, None]:
    if residuals is None:
        return None, None
    empty_Vx0, tokens_BxL = residuals
    zeros_VxD = jnp.zeros((len(empty_Vx0), dx_BxLxD.shape[-1]), jnp.float32)

    def add_rows(tokens: jax.Array, dx: jax.Array) -> jax.Array:
        return zeros_VxD.at[tokens].add(dx.astype(jnp.float32))

    parts_GxVxD = jax.vmap(add_rows)(rows_by_device(tokens_BxL), rows_by_device(dx_BxLxD))
    parts_GxVxD = rules.constrain(parts_GxVxD, "batch", "vocab", None)
    return scatter_gradient(parts_GxVxD, EMBEDDING_AXES).astype(empty_Vx0.dtype), None


_fsdp_embed.defvjp(_embed_forward, _embed_backward, symbolic_zeros=True)
