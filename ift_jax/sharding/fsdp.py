"""Matrix products with weights that are sharded over the fsdp axes.

Mostly the compiler inserts the collectives itself. Along the lines of a large TPU torus (mesh axis
`fsdp_line`) it would replace each gather and scatter by an all-reduce of twice the bytes
(`mesh.MAX_RING_DEVICES`), so there this module gathers weights and scatters gradients by hand.

Shape suffixes: B rows, L positions, D the weight's input, F its output; G devices that share
the batch, T positions of one of them.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ift_jax.sharding.mesh import FSDP
from ift_jax.sharding.rules import LOGICAL_AXIS_RULES, batch_shards, constrain, partition_spec


def flat_matmul(
    x: jax.Array, w_DxF: jax.Array, dtype: jnp.dtype, axes: tuple[str, str] | None = None
) -> jax.Array:
    """Compute `x @ w` over the last axis of `x` in `dtype`, with the leading axes merged.

    The weight gradient of a product over three axes makes XLA copy the activations transposed on
    CPU, which takes 1.2 to 1.5 times as long for the whole step. If the length is sharded
    over devices, merging it with the batch would move data, so it stays apart.

    Args:
        x: BxLxD, or any leading axes.
        w_DxF: The weight, in any dtype.
        dtype: The dtype of the product and of its result.
        axes: The weight's logical axes; None if it is never sharded over fsdp.
    """
    x = x.astype(dtype)
    if axes and x.ndim == 3 and batch_shards(x.shape[0]) and is_sharded_in_lines(axes, w_DxF.shape):
        return _fsdp_matmul(x, w_DxF, axes)
    w_DxF = w_DxF.astype(dtype)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.shape["sequence"] > 1:
        return x @ w_DxF
    return _matmul_2d(x, w_DxF)


def _matmul_2d(x: jax.Array, w_DxF: jax.Array) -> jax.Array:
    return (x.reshape(-1, x.shape[-1]) @ w_DxF).reshape(*x.shape[:-1], w_DxF.shape[-1])


def rows_by_device(a: jax.Array) -> jax.Array:
    """Merge the positions of each device's rows: BxLx(...) becomes GxTx(...); G must divide B."""
    a = a.reshape(batch_shards(a.shape[0]), -1, *a.shape[2:])
    return constrain(a, "batch", *(None,) * (a.ndim - 1))


def is_sharded_in_lines(axes: Sequence[str | None], shape: Sequence[int]) -> bool:
    """Whether a weight is sharded along both of the axes that fsdp is made of on a large torus."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp_line"] == 1:
        return False
    return FSDP in partition_spec(axes, shape, dict(mesh.shape))


def gather_weight(w: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Make a weight whole along fsdp: gather it along the torus's lines, then along the rest."""
    if not is_sharded_in_lines(axes, w.shape):
        return constrain(w, *(None if name == "embed" else name for name in axes))
    partition = _line_partition(axes, w.shape)

    def local(w: jax.Array) -> jax.Array:
        for name in reversed(FSDP):
            w = jax.lax.all_gather(w, name, axis=partition.fsdp_axis, tiled=True)
        return w

    gather = jax.shard_map(
        local, in_specs=(partition.sharded,), out_specs=partition.gathered, check_vma=False
    )
    return gather(w)


def scatter_gradient(parts_GxDxF: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """Sum the devices' parts of a weight's gradient, and shard the sum as the weight is sharded.

    Args:
        parts_GxDxF: One part for each device that shares the batch, sharded over the batch's mesh
            axes.
        axes: The weight's logical axes.

    Returns:
        DxF.
    """
    n_parts = len(parts_GxDxF)
    shape = parts_GxDxF.shape[1:]
    if not is_sharded_in_lines(axes, shape) or batch_shards(n_parts) != n_parts:
        return constrain(parts_GxDxF.sum(axis=0), *axes)
    partition = _line_partition(axes, shape)

    def local(parts: jax.Array) -> jax.Array:
        # The compiler splits columns only into parts of at least 128, but rows into any.
        part = jnp.moveaxis(parts[0], partition.fsdp_axis, 0)
        for name in FSDP:
            part = jax.lax.psum_scatter(part, name, tiled=True)
        part = jax.lax.psum(part, ("data", "expert"))
        return jnp.moveaxis(part, 0, partition.fsdp_axis)

    in_spec = P(LOGICAL_AXIS_RULES["batch"], *partition.gathered)
    scatter = jax.shard_map(
        local, in_specs=(in_spec,), out_specs=partition.sharded, check_vma=False
    )
    return scatter(parts_GxDxF)


class _LinePartition(NamedTuple):
    """How a weight that `is_sharded_in_lines` lies on the devices."""

    sharded: P
    gathered: P  # The same, whole along fsdp.
    fsdp_axis: int  # The axis of the weight that fsdp shards.


def _line_partition(axes: Sequence[str | None], shape: Sequence[int]) -> _LinePartition:
    sharded = partition_spec(axes, shape, dict(jax.sharding.get_abstract_mesh().shape))
    gathered = P(*(None if part == FSDP else part for part in sharded))
    return _LinePartition(sharded, gathered, list(sharded).index(FSDP))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fsdp_matmul(x_BxLxD: jax.Array, w_DxF: jax.Array, axes: tuple[str, str]) -> jax.Array:
    """`_matmul_2d` in the dtype of `x`, with gathering and scattering by hand.

    The compiler would sum the whole weight gradient on every device, and only then shard it.
    """
    return _matmul_2d(x_BxLxD, gather_weight(w_DxF.astype(x_BxLxD.dtype), axes))


def _fsdp_forward(x: Any, w: Any, axes: tuple[str, str]) -> tuple[jax.Array, Any]:
    saved_x = x.value if w.perturbed else None  # A frozen weight needs no gradient.
    return _fsdp_matmul(x.value, w.value, axes), (saved_x, w.value)


def _fsdp_backward(axes: tuple[str, str], residuals: Any, dy_BxLxF: jax.Array) -> tuple[Any, Any]:
    x_BxLxD, w_DxF = residuals
    dx_BxLxD = _matmul_2d(dy_BxLxF, gather_weight(w_DxF.astype(dy_BxLxF.dtype), axes).T)
    if x_BxLxD is None:
        return dx_BxLxD, None

    dw_GxDxF = jnp.einsum("gtd,gtf->gdf", rows_by_device(x_BxLxD), rows_by_device(dy_BxLxF))
    return dx_BxLxD, scatter_gradient(dw_GxDxF, axes).astype(w_DxF.dtype)


_fsdp_matmul.defvjp(_fsdp_forward, _fsdp_backward, symbolic_zeros=True)
