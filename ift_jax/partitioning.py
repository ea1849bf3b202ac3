"""The mesh and the one table from logical axis names to mesh axes.

Model code names what an axis *is* ("embed", "mlp", "batch"); this module alone knows which
mesh axis it is cut along. Mesh axes: `data` (replicated parameters), `fsdp` (parameters cut,
gathered for use), `tensor` (heads and hidden units cut), `sequence` (positions cut). On a large
TPU slice `fsdp` is two axes, the second (`fsdp_line`) along a line of the torus.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ift_jax.config import MeshConfig
from ift_jax.errors import UserError

CONFIG_AXES = ("data", "fsdp", "tensor", "sequence")
MESH_AXES = ("data", "fsdp", "fsdp_line", "tensor", "sequence")
FSDP = ("fsdp", "fsdp_line")
# Along more devices than these, the TPU compiler (libtpu 0.0.42.1) makes all-reduces, of twice the
# bytes, of all gathers and scatters over several axes of the torus; up to here it passes parts on
# around a ring, beside the products.
RING = 16

# Logical axis -> mesh axes. A name that is not here is a mistake in our code and raises.
LOGICAL_AXIS_RULES: dict[str, tuple[str, ...]] = {
    # Parameters.
    "layers": (),
    "embed": FSDP,
    "embed_over_data": (*FSDP, "data"),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "norm": (),
    "lora": (),
    "relative_buckets": (),
    # Activations.
    "batch": ("data", *FSDP),
    "length": ("sequence",),
    "embed_act": (),
    "heads_act": ("tensor",),
    "kv_heads_act": ("tensor",),
    "mlp_act": ("tensor",),
    "vocab_act": ("tensor",),
}


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh over `devices` (default: all), near ones next to each other.

    Of several TPU slices, `data` alone crosses from one to another: parameters are gathered over
    the fast network inside a slice.

    Raises:
        UserError: the sizes do not multiply to the number of devices, or `data` not to the slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [getattr(config, axis) for axis in CONFIG_AXES]
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(f"mesh: sizes must be positive, one of them may be -1; got {sizes}")
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        if len(devices) % known:
            raise UserError(f"mesh: {known} does not divide the {len(devices)} devices")
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        shape = in_words(dict(zip(CONFIG_AXES, sizes, strict=True)), least=1)
        raise UserError(f"mesh: {shape} makes {math.prod(sizes)}, but {len(devices)} devices exist")
    # GPU and CPU hosts are numbered as slices too; there every mesh is allowed.
    n_slices = len({getattr(d, "slice_index", 0) for d in devices if d.platform == "tpu"}) or 1
    if sizes[0] % n_slices:
        raise UserError(f"config.mesh.data: expected a multiple of the {n_slices} slices; got "
                        f"{sizes[0]}")  # fmt: skip
    inside = (sizes[0] // n_slices, *sizes[1:])
    split = dict(allow_split_physical_axes=True)
    if n_slices > 1:
        slices = (n_slices, 1, 1, 1)
        return mesh_of(mesh_utils.create_hybrid_device_mesh(inside, slices, devices, **split))
    try:
        return mesh_of(mesh_utils.create_device_mesh(inside, devices))
    except NotImplementedError:  # An axis is longer than any physical one, or has another divisor.
        return mesh_of(mesh_utils.create_device_mesh(inside, devices, **split))


def mesh_of(devices: np.ndarray, line: int | None = None) -> Mesh:
    """The mesh of devices in an array of the config's four axes.

    `line`: the size of `fsdp_line`, a divisor of fsdp's; by default by the torus.
    """
    data, fsdp, *others = devices.shape
    line = line or _line(list(devices[0, :, 0, 0]))
    devices = devices.reshape(data, fsdp // line, line, *others)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def config_sizes(mesh: Mesh) -> dict[str, int]:
    """The sizes of the axes as a config names them."""
    data, fsdp, line, tensor, sequence = mesh.devices.shape
    return dict(zip(CONFIG_AXES, (data, fsdp * line, tensor, sequence), strict=True))


def in_words(sizes: Mapping[str, int], *, least: int = 2) -> str:
    """The axes of at least so many devices, as "data 2 x fsdp 4"; "1 device" where none is."""
    return " x ".join(f"{axis} {n}" for axis, n in sizes.items() if n >= least) or "1 device"


def _line(along: list[Any]) -> int:
    """How many of these devices, of each so many, stand in a line of the TPU's torus; 1: no cut."""
    if along[0].platform != "tpu" or len(along) <= RING:
        return 1
    moved = np.array([device.coords for device in along]) != along[0].coords
    line = next((i for i in range(2, len(along)) if (moved[i] != moved[1]).any()), 1)
    return line if len(along) % line == 0 else 1


def spec(axes: Sequence[str | None], shape: Sequence[int], mesh_shape: dict[str, int]) -> P:
    """The partition of an array whose axes carry these logical names.

    An axis is cut along as many of its mesh axes, from the first on, as divide its size: a small
    norm or a model with fewer key-value heads than tensor shards is replicated, not refused.
    """
    entries: list[Any] = []
    for name, size in zip(axes, shape, strict=True):
        rule = LOGICAL_AXIS_RULES[name] if name else ()
        cut = tuple(axis for axis in rule if mesh_shape[axis] > 1)
        while size % math.prod(mesh_shape[axis] for axis in cut):
            cut = cut[:-1]
        entries.append((cut if len(cut) > 1 else cut[0]) if cut else None)
    return P(*entries)


def divides(name: str, size: int) -> bool:
    """Whether the mesh cuts an axis of this logical name and size evenly (or not at all)."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or size % math.prod(mesh.shape[a] for a in LOGICAL_AXIS_RULES[name]) == 0


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains `x` to the partition of these logical axes; identity where there is no mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(axes, x.shape, dict(mesh.shape)))


def over_data(axes: Sequence[str | None]) -> tuple[str | None, ...]:
    """The axes of optimizer state that is cut along `data`, too, where its parameter is not."""
    return tuple("embed_over_data" if name == "embed" else name for name in axes)


def platform() -> str:
    """Of the mesh's devices (not always this machine's) or else JAX's: "cpu", "gpu" or "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def on_shards(
    function: Callable[..., jax.Array], out_axes: tuple[str | None, ...],
    *args: tuple[tuple[str | None, ...], Any],
) -> jax.Array:  # fmt: skip
    """Calls `function` on each device's parts of the arguments: pairs of logical axes and arrays.

    For kernels that the compiler cannot cut by itself. An argument may be a tree of arrays with
    the same axes. `function` must keep the axes of the output cut as those of the first
    argument are; where there is no mesh, it is called on the whole.
    """
    mesh, trees = jax.sharding.get_abstract_mesh(), [tree for _, tree in args]
    if mesh.empty or mesh.size == 1:
        return function(*trees)
    of = lambda names, a: spec(names, a.shape, dict(mesh.shape))  # noqa: E731
    specs = tuple(jax.tree.map(functools.partial(of, names), tree) for names, tree in args)
    cut_of = dict(zip(args[0][0], specs[0], strict=True))
    out = P(*(cut_of.get(name) for name in out_axes))
    return jax.shard_map(function, in_specs=specs, out_specs=out, check_vma=False)(*trees)


def whole_length(tree: Any, axis: int, length: int) -> Any:
    """Inside `on_shards`: gathers the positions of all devices; the gradient is summed and cut."""
    gather = functools.partial(jax.lax.all_gather, axis_name="sequence", axis=axis, tiled=True)
    return jax.tree.map(lambda a: a if a.shape[axis] == length else gather(a), tree)


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


def batch_shards(batch: int) -> int:
    """Into how many rows a batch may be merged without moving data; 0: not at all."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    shards = math.prod(mesh.shape[axis] for axis in LOGICAL_AXIS_RULES["batch"])
    return shards if mesh.shape["sequence"] == 1 and batch % shards == 0 else 0


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


def tree_shardings(mesh: Mesh, logical_axes: Any, shapes: Any) -> Any:
    """Shardings of a tree of arrays from the tree of their logical axes (tuples of names)."""
    of = lambda leaf, axes: NamedSharding(mesh, spec(axes, leaf.shape, dict(mesh.shape)))  # noqa: E731
    return jax.tree.map(of, shapes, logical_axes)


def batch_sharding(mesh: Mesh, shape: Sequence[int]) -> NamedSharding:
    """The sharding of one array of a batch: by rows, and by positions where it has them."""
    return NamedSharding(mesh, spec(("batch", "length")[: len(shape)], shape, dict(mesh.shape)))


def put_batch(mesh: Mesh, shapes: dict[str, tuple[int, ...]], rows: Any) -> dict[str, jax.Array]:
    """A global batch of which this process builds only the rows that its devices hold.

    `shapes` are global (rows first); `rows` gives {name: array} of a slice of rows.
    """
    n_rows = next(iter(shapes.values()))[0]
    indices = batch_sharding(mesh, (n_rows,)).addressable_devices_indices_map((n_rows,))
    slices = [index[0].indices(n_rows) for index in indices.values() if index]
    first, last = min(s[0] for s in slices), max(s[1] for s in slices)
    local = rows(slice(first, last))

    def shard(name: str, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(n_rows)
        return local[name][(slice(start - first, stop - first), *index[1:])]

    make = jax.make_array_from_callback
    return {name: make(shape, batch_sharding(mesh, shape), functools.partial(shard, name))
            for name, shape in shapes.items()}  # fmt: skip
