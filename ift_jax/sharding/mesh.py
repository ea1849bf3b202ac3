"""The device mesh."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from ift_jax.config.schema import MeshConfig
from ift_jax.errors import UserError

CONFIG_AXES = ("data", "fsdp", "tensor", "sequence")


MESH_AXES = ("data", "fsdp", "fsdp_line", "tensor", "sequence")


FSDP = ("fsdp", "fsdp_line")


# Along more devices than these, the TPU compiler (libtpu 0.0.42.1) makes all-reduces, of twice the
# bytes, of all gathers and scatters over several axes of the torus; up to here it passes parts on
# around a ring, beside the products.
RING = 16


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
        raise UserError(
            f"config.mesh.data: expected a multiple of the {n_slices} slices; got {sizes[0]}"
        )
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
