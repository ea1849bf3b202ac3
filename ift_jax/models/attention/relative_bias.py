"""T5's relative position bias (Raffel et al. 2020, arXiv:1910.10683).

The bias of a pair depends on its distance, key index - query index, alone. So a model computes one
value for each head and distance (HxW, where column 0 is the smallest distance), and attention
spreads these over the pairs.
"""

import jax
import jax.numpy as jnp
import numpy as np


def relative_buckets(
    distance: np.ndarray, *, bidirectional: bool, buckets: int, max_distance: int
) -> np.ndarray:
    """The bucket of each distance (key position - query position), int32, as T5 computes it.

    Half of the buckets hold a single distance each, the others grow logarithmically up to
    `max_distance`. In the encoder (`bidirectional`) each direction has half of the buckets; in the
    decoder all of them are for the past.
    """
    if bidirectional:
        buckets //= 2
        offset = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    else:
        offset = np.zeros_like(distance)
        distance = np.maximum(-distance, 0)
    exact = buckets // 2
    # The small term keeps distances at the edge of a bucket from falling into the one below.
    octaves = np.log(np.maximum(distance, 1) / exact + 1e-7) / np.log(max_distance / exact)
    far = np.minimum(exact + (octaves * (buckets - exact)).astype(np.int32), buckets - 1)
    return (offset + np.where(distance < exact, distance, far)).astype(np.int32)


def bias_of_pairs(bias_HxW: jax.Array, n_queries: int) -> jax.Array:
    """The bias of each pair of a query and a key: HxLxS.

    It only reshapes, so its gradient needs no scatter.

    Args:
        bias_HxW: The bias by distance, for the distances 1 - L .. S - 1 (so W = L + S - 1).
        n_queries: L.
    """
    W = bias_HxW.shape[1]
    padded = jnp.pad(bias_HxW, ((0, 0), (0, 1)))
    # The padded vector is repeated and read in rows of W: row i starts i columns earlier.
    repeated = jnp.tile(padded, (1, n_queries))
    rows_HxLxW = repeated[:, : n_queries * W].reshape(-1, n_queries, W)
    return rows_HxLxW[:, :, n_queries - 1 :]
