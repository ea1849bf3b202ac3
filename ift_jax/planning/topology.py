"""The devices of a TPU topology that this machine does not have, for the TPU compiler."""

import re
import sys

import jax
from jax.experimental import topologies

from ift_jax.errors import UserError

# The axes of each chip's network.
AXES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2, "tpu7x": 3}
EXAMPLES = "v4:2x2x2, v5e:16x16, v5p:4x4x4, v6e:16x16 or tpu7x:2x2x2"


def devices_of(topology: str, slices: int = 1) -> list[jax.Device]:
    """Return the devices of a topology: its chips, or two per chip of tpu7x.

    Args:
        topology: A chip and its number along each axis: "v5p:4x4x4".
        slices: The number of such slices.

    Raises:
        UserError: There is no such topology, or the compiler for it is not installed on this
            machine or fails.
    """
    chip, _, sizes = topology.partition(":")
    if not _is_grid(chip, sizes):
        raise UserError(
            "--topology: expected a chip and how many of them there are along each "
            f"axis, as {EXAMPLES}; got {topology!r}"
        )
    options: dict[str, object] = {}
    if slices > 1:
        options["num_slices"] = slices
    if set(sizes) <= set("1x"):
        options["chips_per_host_bounds"] = (1, 1, 1)  # By default a host has more than one chip.
    if chip == "v4":
        options["chip_config_name"] = "megacore"  # A chip is one device, as on Cloud TPU.
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except jax.errors.JaxRuntimeError as error:
        said = " ".join(str(error).split())
        if not said.startswith("INVALID_ARGUMENT"):  # Its lock file cannot be opened, say.
            raise UserError(
                f"--topology {topology}: the TPU compiler could not be asked ({said})"
            ) from error
        raise UserError(
            f"--topology {topology}: the compiler knows no such topology "
            f"({said}); expected one like {EXAMPLES}"
        ) from error
    except (RuntimeError, ImportError, OSError) as error:
        system = "" if sys.platform == "linux" else f"; libtpu is for Linux, this is {sys.platform}"
        raise UserError(
            "the TPU compiler is not installed: run launch/setup.sh plan"
            f"{system} ({' '.join(str(error).split())[:100]})"
        ) from error
    return list(found.devices)


def _is_grid(chip: str, sizes: str) -> bool:
    """Whether `sizes` has a positive number for each axis of a known chip: "4x4x4"."""
    if chip not in AXES:
        return False
    return re.fullmatch("x".join([r"[1-9]\d*"] * AXES[chip]), sizes) is not None
