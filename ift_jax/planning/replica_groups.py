"""The devices that take part in a collective together, from the ways in which HLO writes them."""

import math
import re

import numpy as np

from ift_jax.planning.hlo import Instruction


def first_group(instruction: Instruction) -> tuple[int, ...]:
    """Return the first of a collective's groups: devices by their index in the mesh.

    For a collective-permute, it is the chain that its pairs of source and target make from their
    first device on.
    """
    if "collective-permute" in instruction.opcode:
        return _chain(instruction.attribute(r"source_target_pairs=\{(.*?\})\}"))
    text = instruction.attribute(r"replica_groups=(.*)")
    if listed := re.match(r"\{\{([\d,]+)\}", text):
        return integers(listed[1])
    if iota := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        return _iota_group(integers(iota[1]), integers(iota[2]), integers(iota[3] or ""))
    return _mesh_group(text)


def integers(text: str) -> tuple[int, ...]:
    """Return the integers in a text."""
    return tuple(int(i) for i in re.findall(r"\d+", text))


def _chain(pairs: str) -> tuple[int, ...]:
    """Follow `{0,1},{1,2},...` from the first source until a device has no target or returns."""
    flat = integers(pairs)
    target_of = dict(zip(flat[::2], flat[1::2], strict=True))
    chain = [flat[0]]
    while (target := target_of.get(chain[-1])) is not None and target not in chain:
        chain.append(target)
    return tuple(chain)


def _iota_group(
    shape: tuple[int, ...], reshaped: tuple[int, ...], permutation: tuple[int, ...]
) -> tuple[int, ...]:
    """Read `[groups,size]<=[reshaped]T(permutation)`."""
    ids = np.arange(math.prod(shape)).reshape(reshaped)
    ids = ids.transpose(permutation or None).reshape(shape)
    return tuple(ids[0].tolist())


def _mesh_group(text: str) -> tuple[int, ...]:
    """Read axes of a mesh, `mesh['a'=4,'b'=2] {'b'}`, or of a part of one, `{'a':(1)2}`.

    `'a':(1)2` is the part of axis `a` that has the pre-size 1 and the size 2.
    """
    found = re.match(r"mesh\[(.*?)\].*?\{(.*?)\}", text)
    axes, chosen_axes = (found[1], found[2]) if found else ("", "")
    sizes = [(axis, int(size)) for axis, size in re.findall(r"'(\w+)'=(\d+)", axes)]
    chosen = {
        axis: integers(part) for axis, part in re.findall(r"'(\w+)'(:\(\d+\)\d+)?", chosen_axes)
    }
    ids = np.zeros(1, int)
    stride = 1
    for axis, size in reversed(sizes):
        if axis in chosen:
            before, n = chosen[axis] or (1, size)
            step = stride * (size // before // n)
            ids = (np.arange(n)[:, None] * step + ids).reshape(-1)
        stride *= size
    return tuple(ids.tolist())
