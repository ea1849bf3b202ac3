"""What a device of each TPU can do, from the published figures in `chips.toml`."""

import dataclasses
import functools
import tomllib
from importlib import resources


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device as JAX counts them: half a chip of tpu7x, a whole one of the others."""

    hbm_bytes: float
    hbm_bandwidth: float  # Bytes/s.
    peak_flops: float  # bf16, FLOP/s.
    clock: float  # Cycles/s.
    wraps: int  # An axis of a size that this divides is closed to a ring.
    ici_bandwidth: float  # Bytes/s of one link in one direction.
    dcn_bandwidth: float  # Bytes/s out of the device to other slices.


@functools.cache
def chips() -> dict[str, Chip]:
    """Every chip by the name that topologies begin with: v5p of v5p:4x4x4."""
    table = tomllib.loads(resources.files(__package__).joinpath("chips.toml").read_text())
    found = {}
    for name, of_chip in table.items():
        parts = ("hbm_gib", "hbm_bandwidth", "peak_flops", "ici_bandwidth", "dcn_bandwidth")
        gib, memory, peak, ici, dcn = (of_chip[part] / of_chip["devices"] for part in parts)
        clock = peak / of_chip["flops_per_cycle"]
        found[name] = Chip(gib * 2**30, memory, peak, clock, of_chip["wraps"], ici, dcn)
    return found
