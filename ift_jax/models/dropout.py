"""Dropout whose masks depend on the key and the row's number in the global batch alone.

So they are the same however the batch is split into microbatches or sharded over devices. Shape
suffix: B rows.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def dropout_row_keys(
    dropout_key: jax.Array | None, batch: dict[str, jax.Array], rate: float
) -> jax.Array | None:
    """One key per row, from `row_ids`, the row's number in the global batch; None: no dropout."""
    if dropout_key is None or rate == 0.0:
        return None
    return jax.vmap(lambda row: jax.random.fold_in(dropout_key, row))(batch["row_ids"])


def fold_keys(keys_B: jax.Array | None, number: int | jax.Array) -> jax.Array | None:
    """The rows' keys for the layer or stack of this number; None stays None."""
    if keys_B is None:
        return None
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys_B)


def dropout_masks(
    keys_B: jax.Array | None, rate: float | jax.Array, *shapes: tuple[int, ...]
) -> list[jax.Array | None]:
    """Draw a mask (B, *shape) of each shape: 0 with probability `rate`, else 1 / (1 - rate).

    All are slices of one draw, because each draw adds to the time that a step takes to compile.
    Without keys every mask is None.
    """
    if keys_B is None:
        return [None] * len(shapes)
    sizes = [math.prod(shape) for shape in shapes]

    def draw_row(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, 1.0 - rate, (sum(sizes),))

    all_masks = jax.vmap(draw_row)(keys_B) / (1.0 - rate)
    masks = jnp.split(all_masks, np.cumsum(sizes)[:-1], axis=1)
    rows = keys_B.shape[0]
    return [mask.reshape(rows, *shape) for mask, shape in zip(masks, shapes, strict=True)]


def apply_dropout(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Multiply `x` by a mask of dropout, if there is one."""
    return x if mask is None else x * mask.astype(x.dtype)


def drop_elements(x: jax.Array, key_data_Bx2: jax.Array | None, rate: float) -> jax.Array:
    """Dropout of single numbers: each row of `x` draws from its own key; without keys none.

    Args:
        x: Any shape with rows in front.
        key_data_Bx2: `jax.random.key_data` of the rows' keys.
        rate: The share that becomes 0; the rest is divided by 1 - rate.
    """
    if key_data_Bx2 is None:
        return x

    def draw_row(key_data: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.wrap_key_data(key_data), 1.0 - rate, x.shape[1:])

    return jnp.where(jax.vmap(draw_row)(key_data_Bx2), x / (1.0 - rate), 0.0).astype(x.dtype)
