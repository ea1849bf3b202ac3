"""Reading the arrays of one checkpoint, and proving that they are what was saved.

A checkpoint is a dict of named parts ("params", "opt_state", ...), each a tree of arrays. One more
part, `CHECKSUMS`, holds the checksum of every array (`ift_jax.sharding.checksums`).

Orbax writes a checkpoint as a database of TensorStore (OCDBT) in which every array is a Zarr array
named by its path in the tree, such as "params.embedding". It is read through TensorStore and not
through Orbax: for a damaged file Orbax prints a traceback of each array that it was reading, from
threads of its own, beside the error that it raises.
"""

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from jax.experimental import multihost_utils

from ift_jax.errors import UserError
from ift_jax.io.paths import is_remote
from ift_jax.sharding.checksums import checksums

CHECKSUMS = "checksums"
# The parts of checkpoints that were written before there were checksums.
_FORMER_PARTS = {
    "params",
    "frozen",
    "frozen_sum",
    "opt_state",
    "step",
    "skipped",
    "bad_streak",
    "interval",
}
_DRIVERS = {"/.zarray": "zarr", "/zarr.json": "zarr3"}  # By the file that describes an array.
_ARRAYS_AT_ONCE = 4  # A process holds so many at a time, as far as its devices need them.
_CACHE_BYTES = 100 * 10**6  # The cache of the database's index is as large as Orbax's.
# What TensorStore raises for files that are missing, cut off or altered.
_READ_ERRORS = (ValueError, OSError)
_MOST_CHARACTERS = 200  # The reason in a message is cut here.

SavedArrays = dict[str, ts.TensorStore]


class UnreadableCheckpoint(UserError):
    """A checkpoint is damaged or incomplete. The message says why, but not which one it is."""


def with_checksums(parts: dict[str, Any]) -> dict[str, Any]:
    """Return what is saved: the parts, and the checksums of their arrays."""
    return {**parts, CHECKSUMS: checksums(parts)}


def open_arrays(folder: str) -> SavedArrays:
    """Open the arrays of a checkpoint by their paths, such as "params.embedding"; read no values.

    Args:
        folder: The checkpoint, a folder named by its step.

    Raises:
        UnreadableCheckpoint: The checkpoint does not say which arrays it has.
    """
    path = os.path.join(folder, "default", "")  # Orbax's name for what is saved without a name.
    base = path if is_remote(path) else f"file://{path}"
    try:
        context = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})
        database = ts.KvStore.open({"driver": "ocdbt", "base": base}, context=context).result()
        opening = {}
        for key in map(bytes.decode, database.list().result()):
            for ending, driver in _DRIVERS.items():
                if key.endswith(ending):
                    name = key.removesuffix(ending)
                    store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
                    spec = {"driver": driver, "kvstore": store}
                    opening[name] = ts.open(spec, open=True, read=True, context=context)
        arrays = {name: future.result() for name, future in opening.items()}
    except _READ_ERRORS as error:
        raise UnreadableCheckpoint(_reason(error)) from error
    parts = {name.partition(".")[0] for name in arrays}
    if "params" not in parts or not (CHECKSUMS in parts or parts <= _FORMER_PARTS):
        raise UnreadableCheckpoint(f"it holds {', '.join(sorted(parts)) or 'no arrays'}")
    return arrays


def check_misfits(
    folder: str, saved: SavedArrays, wanted: dict[str, Any], other: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Check that a checkpoint holds the arrays that are wanted.

    Args:
        folder: The checkpoint, for the message.
        saved: Its arrays.
        wanted: Parts, each complete, with the shape of every array.
        other: The same arrays in another structure, which will do as well.

    Returns:
        Whichever of the two has the structure in which the arrays were saved.

    Raises:
        UserError: An array is missing, is not wanted, or has another shape.
    """
    misfit = _misfits(saved, wanted)
    if not misfit:
        return wanted
    if other is not None and not _misfits(saved, other):
        return other
    more = f" and {len(misfit) - 1} more" if len(misfit) > 1 else ""
    raise UserError(f"{folder}: does not fit the config: {misfit[0]}{more}")


def _misfits(saved: SavedArrays, wanted: dict[str, Any]) -> list[str]:
    """Return a phrase for each array that keeps a checkpoint from being read."""
    found = {name: array.shape for name, array in saved.items() if name.partition(".")[0] in wanted}
    expected = {name: array.shape for name, array in _by_name(wanted).items()}
    phrases = [f"it has no array {name}" for name in expected.keys() - found.keys()]
    phrases += [f"it has an array {name}" for name in found.keys() - expected.keys()]
    phrases += [
        f"its {name} is {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    return sorted(phrases)


def read_parts(
    folder: str,
    wanted: dict[str, Any],
    warn: Callable[[str], None],
    other: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Read some parts of a checkpoint, and compare them with their checksums.

    Every process of a run calls this, and all of them agree on whether it fails.

    Args:
        folder: The checkpoint, a folder named by its step.
        wanted: The parts, each complete, with the shape and dtype of every array and, unless it
            is NumPy's, its sharding. An array that was saved in another dtype is converted.
        warn: Called with a line if the checkpoint has no checksums to compare with.
        other: The same arrays in another structure, in which they may have been saved.

    Raises:
        UserError: The checkpoint holds other arrays.
        UnreadableCheckpoint: An array cannot be read, or is not what was saved.
    """
    error: Exception | None = None
    parts: dict[str, Any] = {}
    sums: dict[str, np.ndarray] | None = {}
    try:
        saved = open_arrays(folder)
        wanted = check_misfits(folder, saved, wanted, other)
        parts = _read_arrays(saved, wanted)
        sums = _read_sums(saved, wanted)
    except (UnreadableCheckpoint, *_READ_ERRORS) as caught:
        error = caught
    if not _in_all_processes(error is None):
        reason = _reason(error) if error else "another process cannot read it"
        raise UnreadableCheckpoint(reason) from error
    if sums is None:
        warn(f"{folder}: was written without checksums, so damage would go unnoticed")
    else:
        _check_sums(parts, sums)
    return jax.tree.map(lambda array, like: array.astype(like.dtype), parts, wanted)


def _in_all_processes(here: bool) -> bool:
    """Whether something holds in every process of a run, each of which calls this."""
    if jax.process_count() == 1:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.array(here))))


def _read_arrays(saved: SavedArrays, wanted: dict[str, Any]) -> dict[str, Any]:
    """Read the arrays of some parts, each in the dtype in which it was saved."""
    with ThreadPoolExecutor(_ARRAYS_AT_ONCE) as pool:
        futures = jax.tree_util.tree_map_with_path(
            lambda path, like: pool.submit(_read_array, saved[_name(path)], like), wanted
        )
        return jax.tree.map(lambda future: future.result(), futures)


def _read_array(saved: ts.TensorStore, like: Any) -> Any:
    """Read an array, or the blocks of it that the devices of this process hold."""
    sharding = getattr(like, "sharding", None)
    if sharding is None:
        return saved.read().result()
    reads: dict[str, Any] = {}  # Several devices may hold the same block, which is read once.
    for index in sharding.addressable_devices_indices_map(like.shape).values():
        if str(index) not in reads:
            reads[str(index)] = saved[index].read()
    return jax.make_array_from_callback(
        like.shape, sharding, lambda index: reads[str(index)].result()
    )


def _read_sums(saved: SavedArrays, parts: Iterable[str]) -> dict[str, np.ndarray] | None:
    """Read the checksums of some parts; None if the checkpoint has none, as the first ones."""
    if not any(name.startswith(f"{CHECKSUMS}.") for name in saved):
        return None
    names = {part: f"{CHECKSUMS}.{part}" for part in parts}
    # A part without arrays has no checksums.
    return {part: saved[name].read().result() for part, name in names.items() if name in saved}


def _check_sums(parts: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """Raise an UnreadableCheckpoint that names the first array with another checksum."""
    for part, sums in checksums(parts).items():
        names = list(_by_name({part: parts[part]}))
        if len(expected.get(part, ())) != len(names):
            raise UnreadableCheckpoint(f"it has no checksums of {part}")
        for name, found, before in zip(names, np.asarray(sums), expected[part], strict=True):
            if found != before:
                raise UnreadableCheckpoint(f"{name} is not what was saved")


def _by_name(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _reason(error: Exception) -> str:
    """Return the message of an error of TensorStore, on one line and not too long."""
    text = re.sub(r" \[[\w ]+=.*", "", " ".join(str(error).split()))  # Its own details follow.
    return text[:_MOST_CHARACTERS]
