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
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import tensorstore as ts

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
_CACHE_BYTES = 100 * 10**6  # Of the database's index, as in Orbax.
# What TensorStore raises for files that are missing, cut off or altered.
_READ_ERRORS = (ValueError, OSError)
_MOST_CHARACTERS = 200  # Of the reason in a message.

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


def has_checksums(saved: Iterable[str]) -> bool:
    """Whether a checkpoint with arrays of these names holds checksums: the first ones do not."""
    return any(name.startswith(f"{CHECKSUMS}.") for name in saved)


def misfits(saved: SavedArrays, wanted: dict[str, Any]) -> list[str]:
    """Return what keeps a checkpoint from being read into some arrays; empty if nothing does.

    Args:
        saved: The arrays of the checkpoint.
        wanted: Parts, each complete, with the shape of every array.

    Returns:
        A phrase for each array that only one of the two has, or that has another shape.
    """
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


def read_parts(saved: SavedArrays, wanted: dict[str, Any]) -> dict[str, Any]:
    """Read some parts of a checkpoint, and compare them with their checksums.

    Every process of a run calls this. It may fail in some of them only.

    Args:
        saved: The arrays of the checkpoint, of which none misfits.
        wanted: The parts, each complete, with the shape and dtype of every array and, unless it
            is NumPy's, its sharding. An array that was saved in another dtype is converted.

    Returns:
        The parts. Those of a checkpoint without checksums are as they were read.

    Raises:
        UnreadableCheckpoint: An array cannot be read, or is not what was saved.
    """

    def read(path: Any, like: Any) -> Any:
        return pool.submit(_read_array, saved[_name(path)], like)

    try:
        with ThreadPoolExecutor(_ARRAYS_AT_ONCE) as pool:
            futures = jax.tree_util.tree_map_with_path(read, wanted)
            parts = jax.tree.map(lambda future: future.result(), futures)
        if has_checksums(saved):
            _check_sums(parts, saved)
    except _READ_ERRORS as error:
        raise UnreadableCheckpoint(_reason(error)) from error
    return jax.tree.map(lambda array, like: array.astype(like.dtype), parts, wanted)


def _read_array(saved: ts.TensorStore, like: Any) -> Any:
    """Read an array in the dtype in which it was saved; a process reads what its devices hold."""
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


def _check_sums(parts: dict[str, Any], saved: SavedArrays) -> None:
    """Raise an UnreadableCheckpoint that names the first array with another checksum."""
    for part, sums in checksums(parts).items():
        name = f"{CHECKSUMS}.{part}"
        if name not in saved:
            raise UnreadableCheckpoint(f"it has no {name}")
        expected_sums = saved[name].read().result()
        names = _by_name({part: parts[part]})
        for array, found, expected in zip(names, np.asarray(sums), expected_sums, strict=True):
            if found != expected:
                raise UnreadableCheckpoint(f"{array} is not what was saved")


def _by_name(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _reason(error: Exception) -> str:
    """Return the message of an error of TensorStore, on one line and not too long."""
    text = re.sub(r" \[[\w ]+=.*", "", " ".join(str(error).split()))  # Its own details follow.
    return text[:_MOST_CHARACTERS]
