"""Matrix products with weights that are cut over the fsdp axes."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from ift_jax.sharding.mesh import FSDP
from ift_jax.sharding.rules import LOGICAL_AXIS_RULES, batch_shards, constrain, spec


def flat_matmul(
    x: jax.Array, w_DxF: jax.Array, dtype: jnp.dtype, axes: tuple[str, str] | None = None
) -> jax.Array:
    """`x @ w` over the last axis of `x`, computed in `dtype`; `axes` are the weight's, logical.

    The leading axes are flattened to one: the weight gradient of a product over three axes
    makes XLA copy the activations transposed on CPU, 1.2 to 1.5 times the step. Where the
    length is cut over devices, merging it with the batch would move data, so it stays.
    """
    x = x.astype(dtype)
    if axes and x.ndim == 3 and batch_shards(x.shape[0]) and in_lines(axes, w_DxF.shape):
        return _fsdp_matmul(x, w_DxF, axes)
    w_DxF = w_DxF.astype(dtype)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.shape["sequence"] > 1:
        return x @ w_DxF
    return _flat(x, w_DxF)


def _flat(x: jax.Array, w_DxF: jax.Array) -> jax.Array:
    return (x.reshape(-1, x.shape[-1]) @ w_DxF).reshape(*x.shape[:-1], w_DxF.shape[-1])


def by_device(a: jax.Array) -> jax.Array:
    """The positions of each device's rows: GxTx(...) of BxLx(...); B must divide."""
    a = a.reshape(batch_shards(a.shape[0]), -1, *a.shape[2:])
    return constrain(a, "batch", *(None,) * (a.ndim - 1))


def in_lines(axes: Sequence[str | None], shape: Sequence[int]) -> bool:
    """Whether a weight is cut along both axes that fsdp is made of."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape["fsdp_line"] == 1:
        return False
    return FSDP in spec(axes, shape, dict(mesh.shape))


def gather(w: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """A weight whole along fsdp: gathered along the torus's lines, then along the rest."""
    if not in_lines(axes, w.shape):
        return constrain(w, *(None if name == "embed" else name for name in axes))
    cut, whole, axis = _specs(axes, w.shape)

    def local(w: jax.Array) -> jax.Array:
        for name in reversed(FSDP):
            w = jax.lax.all_gather(w, name, axis=axis, tiled=True)
        return w

    return jax.shard_map(local, in_specs=(cut,), out_specs=whole, check_vma=False)(w)


def scatter(parts_GxDxF: jax.Array, axes: Sequence[str | None]) -> jax.Array:
    """The sum of the devices' parts (G of them, cut over the batch's axes), cut as a weight is."""
    shape = parts_GxDxF.shape[1:]
    if not in_lines(axes, shape) or batch_shards(len(parts_GxDxF)) != len(parts_GxDxF):
        return constrain(parts_GxDxF.sum(axis=0), *axes)
    cut, whole, axis = _specs(axes, shape)

    def local(parts: jax.Array) -> jax.Array:
        # Cut along the first axis: of columns the compiler cuts no fewer than 128.
        part = jnp.moveaxis(parts[0], axis, 0)
        for name in FSDP:
            part = jax.lax.psum_scatter(part, name, tiled=True)
        return jnp.moveaxis(jax.lax.psum(part, "data"), 0, axis)

    each = P(LOGICAL_AXIS_RULES["batch"], *whole)
    return jax.shard_map(local, in_specs=(each,), out_specs=cut, check_vma=False)(parts_GxDxF)


def _specs(axes: Sequence[str | None], shape: Sequence[int]) -> tuple[P, P, int]:
    """Of a weight in lines: cut, whole along fsdp, and which axis that is."""
    cut = spec(axes, shape, dict(jax.sharding.get_abstract_mesh().shape))
    return cut, P(*(None if part == FSDP else part for part in cut)), list(cut).index(FSDP)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fsdp_matmul(x_BxLxD: jax.Array, w_DxF: jax.Array, axes: tuple[str, str]) -> jax.Array:
    """`_flat` in the dtype of `x`, gathering the weight; its gradient is summed and cut at once.

    The compiler itself would sum the whole gradient on every device, and then cut it (`RING`).
    """
    return _flat(x_BxLxD, gather(w_DxF.astype(x_BxLxD.dtype), axes))


def _fsdp_forward(x: Any, w: Any, axes: tuple[str, str]) -> tuple[jax.Array, Any]:
    kept = x.value if w.perturbed else None  # Of a frozen weight no gradient is wanted.
    return _fsdp_matmul(x.value, w.value, axes), (kept, w.value)


def _fsdp_backward(axes: tuple[str, str], kept: Any, dy_BxLxF: jax.Array) -> tuple[Any, Any]:
    x_BxLxD, w_DxF = kept
    dx_BxLxD = _flat(dy_BxLxF, gather(w_DxF.astype(dy_BxLxF.dtype), axes).T)
    if x_BxLxD is None:
        return dx_BxLxD, None

    parts_GxDxF = jnp.einsum("gtd,gtf->gdf", by_device(x_BxLxD), by_device(dy_BxLxF))
    return dx_BxLxD, scatter(parts_GxDxF, axes).astype(w_DxF.dtype)


_fsdp_matmul.defvjp(_fsdp_forward, _fsdp_backward, symbolic_zeros=True)
