"""The device mesh: its axes, how devices are arranged in it, and how it is described."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from ift_jax.config.schema import MeshConfig
from ift_jax.errors import UserError

CONFIG_AXES = ("data", "fsdp", "expert", "tensor", "sequence")  # The fields of MeshConfig.

# On a large TPU slice the config's `fsdp` is two axes of the mesh; elsewhere `fsdp_line` is 1.
FSDP = ("fsdp", "fsdp_line")
MESH_AXES = ("data", *FSDP, "expert", "tensor", "sequence")

# Over more devices than these, the TPU compiler (libtpu 0.0.42.1) turns every gather and scatter
# over several axes of the torus into all-reduces, which send twice the bytes. Up to this many it
# passes parts around a ring while the products run.
MAX_RING_DEVICES = 16


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Build the mesh over `devices` (default: all), placing neighbors next to each other.

    When there are several TPU slices, only `data` crosses from one slice to another, so that
    parameters are gathered over the fast network inside a slice.

    Raises:
        UserError: The sizes do not multiply to the number of devices, or `data` is not a multiple
            of the number of slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _resolve_sizes(config, len(devices))
    data, *others = sizes
    # GPU and CPU hosts are numbered as slices too; there every mesh is allowed.
    n_slices = len({getattr(d, "slice_index", 0) for d in devices if d.platform == "tpu"}) or 1
    if data % n_slices:
        raise UserError(
            f"config.mesh.data: expected a multiple of the {n_slices} slices; got {data}"
        )
    sizes_in_slice = (data // n_slices, *others)
    if n_slices > 1:
        return mesh_from_devices(
            mesh_utils.create_hybrid_device_mesh(
                sizes_in_slice,
                (n_slices, *[1] * len(others)),
                devices,
                allow_split_physical_axes=True,
            )
        )
    try:
        arranged = mesh_utils.create_device_mesh(sizes_in_slice, devices)
    except NotImplementedError:
        # An axis is longer than every physical axis, or does not divide any.
        arranged = mesh_utils.create_device_mesh(
            sizes_in_slice, devices, allow_split_physical_axes=True
        )
    return mesh_from_devices(arranged)


def _resolve_sizes(config: MeshConfig, n_devices: int) -> list[int]:
    """Replace -1 by what the number of devices leaves, in the order of CONFIG_AXES."""
    sizes = [getattr(config, axis) for axis in CONFIG_AXES]
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UserError(
            f"config.mesh: sizes must be positive, and one of them may be -1; got {sizes} for "
            f"{', '.join(CONFIG_AXES)}"
        )
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        if n_devices % known:
            raise UserError(
                f"config.mesh: the other sizes make {known}, and {known} does not divide the "
                f"{n_devices} devices"
            )
        sizes[sizes.index(-1)] = n_devices // known
    product = math.prod(sizes)
    if product != n_devices:
        shape = describe_mesh(dict(zip(CONFIG_AXES, sizes, strict=True)), least=1)
        raise UserError(f"config.mesh: {shape} makes {product}, but {n_devices} devices exist")
    return sizes


def mesh_from_devices(devices: np.ndarray, line: int | None = None) -> Mesh:
    """Build the mesh from an array of devices whose axes are CONFIG_AXES.

    Args:
        devices: Five axes of `jax.Device`.
        line: The size of `fsdp_line`, a divisor of the size of fsdp. By default it follows from
            the shape of the TPU's torus.
    """
    data, fsdp, *others = devices.shape
    line = line or _torus_line_length(list(devices[0, :, 0, 0, 0]))
    devices = devices.reshape(data, fsdp // line, line, *others)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def config_sizes(mesh: Mesh) -> dict[str, int]:
    """The size of each axis under the name that the config gives it."""
    data, fsdp, line, *others = mesh.devices.shape
    return dict(zip(CONFIG_AXES, (data, fsdp * line, *others), strict=True))


def describe_mesh(sizes: Mapping[str, int], *, least: int = 2) -> str:
    """Format the axes of at least `least` devices: "data 2 x fsdp 4", or "1 device" if none."""
    return " x ".join(f"{axis} {n}" for axis, n in sizes.items() if n >= least) or "1 device"


def _torus_line_length(devices: list[Any]) -> int:
    """How many consecutive devices stand in one line of the TPU's torus; 1 if fsdp stays whole."""
    first = devices[0]
    if first.platform != "tpu" or len(devices) <= MAX_RING_DEVICES:
        return 1
    moved = np.array([device.coords for device in devices]) != first.coords
    for length in range(2, len(devices)):
        if (moved[length] != moved[1]).any():
            return length if len(devices) % length == 0 else 1
    return 1
