"""The accelerator types of Cloud TPUs, as gcloud and XPK name them: a version and a size.

The sizes are those of docs.cloud.google.com/tpu/docs (pages v2 to tpu7x) and of XPK's table
(src/xpk/core/system_characteristics.py). v5litepod and v6e count chips, all others cores, of which
a chip has two.
"""

import argparse
import re
from collections.abc import Sequence

_CUBE = 128  # The cores of a cube of 4 x 4 x 4 chips, of which larger slices consist.


def _slices_of_cubes(most: int) -> tuple[int, ...]:
    """Return the sizes of v4 and later 3D slices, in cores: parts of a cube, and cubes."""
    return (8, 16, 32, 64, *range(_CUBE, most + 1, _CUBE))


_CHIPS_OF_A_POD = (1, 4, 8, 16, 32, 64, 128, 256)
SIZES = {
    "v2": (8, 32, 128, 256, 512),
    "v3": (8, 32, 64, 128, 256, 512, 1024, 2048),
    "v4": _slices_of_cubes(8192),
    "v5litepod": _CHIPS_OF_A_POD,
    "v5p": _slices_of_cubes(12288),
    "v6e": _CHIPS_OF_A_POD,
    "tpu7x": (2, *_slices_of_cubes(18432)),
}
COUNTED_IN_CHIPS = ("v5litepod", "v6e")
# What else the versions are called -> the name in accelerator types.
OTHER_NAMES = {
    "v5e": "v5litepod",
    "v5lite": "v5litepod",
    "v5litepods": "v5litepod",
    "v5": "v5p",
    "v5pod": "v5p",
    "v6": "v6e",
    "trillium": "v6e",
    "v7": "tpu7x",
    "v7x": "tpu7x",
    "tpu7": "tpu7x",
    "tpuv7x": "tpu7x",
    "ironwood": "tpu7x",
}
# More chips than these (cores, where cores are counted) are on several hosts.
_SIZE_OF_A_HOST = 8


def accelerator_type(value: str, versions: Sequence[str]) -> str:
    """Return an accelerator type such as "v5p-64", if there is one of that name.

    Args:
        value: What the user wrote.
        versions: The versions that are possible here.

    Raises:
        argparse.ArgumentTypeError: There is none; the message names the nearest one.
    """
    version, _, size = value.lower().replace("v5-lite", "v5lite").partition("-")
    named = OTHER_NAMES.get(version, version)
    if named not in versions or not re.fullmatch("[0-9]+", size):
        raise argparse.ArgumentTypeError(
            f"{value!r} is not VERSION-SIZE with a version of {', '.join(versions)}"
        )
    number = int(size)
    if number not in SIZES[named]:
        raise argparse.ArgumentTypeError(f"{value!r}: {_no_such_size(named, number)}")
    if f"{named}-{number}" != value:
        raise argparse.ArgumentTypeError(f"{value!r}: it is called {named}-{number}")
    return value


def has_several_hosts(accelerator: str) -> bool:
    """Return whether a slice of that type is more than one host."""
    return int(accelerator.partition("-")[2]) > _SIZE_OF_A_HOST


def _no_such_size(version: str, size: int) -> str:
    """Say that there is no slice of that size, and which sizes are nearest."""
    sizes = SIZES[version]
    near = [
        f"{version}-{nearest}"
        for nearest in (
            max((known for known in sizes if known < size), default=None),
            min((known for known in sizes if known > size), default=None),
        )
        if nearest is not None
    ]
    counted = "chips" if version in COUNTED_IN_CHIPS else "cores, two of which are a chip"
    verb = "is" if len(near) == 1 else "are"
    return f"there is no slice of {size} {counted}; the nearest {verb} {' and '.join(near)}"
