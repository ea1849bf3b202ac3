"""What a device of each TPU can do, from the published figures in `chips.toml`."""

import dataclasses
import functools
import tomllib
from importlib import resources
from typing import Any


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts them: half a chip of tpu7x, a whole chip of all others.

    Attributes:
        hbm_bytes: Memory.
        hbm_bandwidth: Bytes/s of the memory.
        peak_flops: FLOP/s in bf16.
        clock: Cycles/s that the compiler's estimates are counted in.
        wraps: An axis of the topology is closed to a ring if this divides its size.
        ici_bandwidth: Bytes/s of one link in one direction.
        dcn_bandwidth: Bytes/s from the device to other slices.
    """

    hbm_bytes: float
    hbm_bandwidth: float
    peak_flops: float
    clock: float
    wraps: int
    ici_bandwidth: float
    dcn_bandwidth: float


@functools.cache
def chips() -> dict[str, Chip]:
    """Return every chip by the name that topologies begin with: "v5p" of "v5p:4x4x4"."""
    table = tomllib.loads(resources.files(__package__).joinpath("chips.toml").read_text())
    return {name: _device(figures) for name, figures in table.items()}


def _device(figures: dict[str, Any]) -> Chip:
    """Return one device of a chip; the devices of a chip share everything equally."""
    n_devices = figures["devices"]
    peak_flops = figures["peak_flops"] / n_devices
    return Chip(
        hbm_bytes=figures["hbm_gib"] * 2**30 / n_devices,
        hbm_bandwidth=figures["hbm_bandwidth"] / n_devices,
        peak_flops=peak_flops,
        clock=peak_flops / figures["flops_per_cycle"],
        wraps=figures["wraps"],
        ici_bandwidth=figures["ici_bandwidth"] / n_devices,
        dcn_bandwidth=figures["dcn_bandwidth"] / n_devices,
    )
