"""The norms that DoRA divides by (Liu et al. 2024, arXiv:2402.09353)."""

import jax
import jax.numpy as jnp

_TINY = 1e-30  # The least square of a norm: what has no weights is divided by no zero.


def column_norms(w_DxF: jax.Array, a_DxR: jax.Array, b_RxF: jax.Array, scale: float) -> jax.Array:
    """The norm of each column of W + scale A B, float32, (..., F).

    The product A B has the size of W, and would be made for every projection in every step. Only
    its products with W and with itself are needed, of R rows each: |w + s A b|^2 =
    |w|^2 + 2 s b . (A^T w) + s^2 b . (A^T A b).

    Args:
        w_DxF: The weight, with any leading axes of layers.
        a_DxR: The adapter's first matrix, with the same leading axes.
        b_RxF: Its second one.
        scale: The factor of their product.
    """
    w_DxF, a_DxR, b_RxF = (array.astype(jnp.float32) for array in (w_DxF, a_DxR, b_RxF))
    a_RxD = a_DxR.swapaxes(-1, -2)
    gram_RxR = jnp.matmul(a_RxD, a_DxR, precision="highest")
    cross_RxF = jnp.matmul(a_RxD, w_DxF, precision="highest")
    both_RxF = 2.0 * scale * cross_RxF
    both_RxF += scale**2 * jnp.matmul(gram_RxR, b_RxF, precision="highest")
    squares_F = jnp.sum(jnp.square(w_DxF), axis=-2) + jnp.sum(b_RxF * both_RxF, axis=-2)
    return jnp.sqrt(jnp.maximum(squares_F, _TINY))
