"""The collectives of a compiled TPU program: their kinds, how often, and the bytes they send.

The TPU compiler turns a product with a gathered or scattered matrix into a loop that passes parts
around a ring ("windowed dot general"), a reduce-scatter into a fusion that holds an all-reduce,
and an asynchronous collective into several pieces; each is counted once, as what it does.
"""

import dataclasses
import math
import re

import numpy as np

from ift_jax.planning.hlo import Instruction, Module, arrays, size

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_TO_SLICES = r'_xla_megascale_transfer_type="(\w+)"'  # Of a send over the data centre's network.
_PASSING = ("collective-permute-done", "copy", "bitcast", "reshape", "tuple", "while")
RING = {"windowed_dot_general_body_ag": "all-gather", "windowed_dot_general_body_rs":
        "reduce-scatter"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction and all its executions in a step."""

    kind: str  # One of KINDS.
    executions: int  # In a step.
    # By a device in a step, all executions together, as of a ring of the group's n devices, from
    # the bytes b that a device puts in: all-gather b (n - 1), reduce-scatter and all-to-all
    # b (n - 1) / n, all-reduce twice that, collective-permute b.
    bytes_sent: int
    group_size: int  # Devices that take part together.
    dtype: str  # As HLO writes it: bf16, f32.
    crosses_slices: bool  # Then the group is of slices.
    computation: str  # Where it stands in the program,
    overlaps: bool  # and whether the device computes in the meantime.
    ring: bool  # Parts are passed on to a neighbour.
    group: tuple[int, ...]  # The first of the groups: devices by their place in the mesh.


def collectives(module: Module, data_turns: int = 1) -> list[Collective]:
    """Every collective of a program; `data_turns` as in `Module.executions`."""
    found = []
    for name, times in module.executions(data_turns).items():
        inside = [one for one in module.computations[name].values() if one.opcode == "fusion"]
        fused = [one.calls for one in inside]
        for holder in (name, *fused):
            for one in module.computations[holder].values():
                if kind := _kind(module, name, one, holder):
                    found.append(_collective(module, name, one, holder, kind, times))
    return found


def _kind(module: Module, name: str, one: Instruction, holder: str) -> str:
    """Which of KINDS an instruction is, or ""."""
    kind = one.opcode.removesuffix("-start")
    if one.opcode == "send":
        kind = one.attribute(_TO_SLICES).lower().replace("_", "-")
    if kind not in KINDS:
        return ""
    if "async_collective_fusion_config" in one.attributes and not _starts(module, holder):
        return ""  # A later piece of one that another fusion starts.
    if kind == "all-reduce" and "all-reduce-scatter" in holder:
        return "reduce-scatter"
    if kind == "collective-permute":
        around = [what for ring, what in RING.items() if ring in name]
        return around[0] if around else _beside_ring(module.computations[name], one) or kind
    return kind


def _starts(module: Module, holder: str) -> bool:
    """Whether a fusion starts a collective that goes on beside the products of others."""
    within = module.computations[holder].values()
    return any("AsyncCollectiveStart" in one.attributes for one in within)


def _beside_ring(computation: dict[str, Instruction], one: Instruction) -> str:
    """What ring a permute begins (it is handed to the loop) or ends (it takes the loop's)."""
    loops = {
        other.name: RING[ring[1]]
        for other in computation.values()
        if other.opcode == "while"
        and (ring := re.search(rf"body=%?[\w.-]*?({'|'.join(RING)})", other.attributes))
    }
    reached = {one.name, *one.operands}
    for other in computation.values():  # In the order of the program: users follow.
        if other.name in reached and other.opcode == "get-tuple-element":
            reached.update(other.operands)
        if reached.intersection(other.operands) and other.opcode in _PASSING:
            reached.add(other.name)
    kinds = {loops[name] for name in reached if name in loops}
    return kinds.pop() if len(kinds) == 1 else ""


def _collective(
    module: Module, name: str, one: Instruction, holder: str, kind: str, times: int
) -> Collective:
    given = [module.computations[holder][operand].shape for operand in one.operands]
    put_in, crosses = sum(map(size, given)), one.opcode == "send"
    group, n = _group(one), len(_ints(one.attribute(r'_xla_megascale_target="\{([\d,]+)\}')))
    n = n if crosses else len(group)
    ring = one.opcode.startswith("collective-permute")
    share = (n - 1) / n
    factor = 1 if ring else {"all-gather": n - 1, "all-reduce": 2 * share}.get(kind, share)
    overlaps = crosses or one.opcode.endswith("-start") or _starts(module, holder)
    return Collective(
        kind,
        times,
        round(put_in * factor) * times,
        n,
        arrays(given[0])[0][0],
        crosses,
        name,
        overlaps,
        ring,
        group,
    )


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in re.findall(r"\d+", text))


def _group(one: Instruction) -> tuple[int, ...]:
    """The first group, or what a permute's pairs link to their first device."""
    if "collective-permute" in one.opcode:
        pairs = _ints(one.attribute(r"source_target_pairs=\{(.*?\})\}"))
        following = dict(zip(pairs[::2], pairs[1::2], strict=True))
        chain = [pairs[0]]
        while (after := following.get(chain[-1])) is not None and after not in chain:
            chain.append(after)
        return tuple(chain)
    text = one.attribute(r"replica_groups=(.*)")
    if listed := re.match(r"\{\{([\d,]+)\}", text):
        return _ints(listed[1])
    if cut := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        ids = np.arange(math.prod(_ints(cut[1]))).reshape(_ints(cut[2]))
        ids = ids.transpose(_ints(cut[3] or "") or None).reshape(_ints(cut[1]))
        return tuple(ids[0].tolist())
    # Axes of a mesh, mesh['a'=4,'b'=2] {'b'}; of a part of one, {'a':(1)2}.
    axes = re.match(r"mesh\[(.*?)\].*?\{(.*?)\}", text)
    chosen = {
        a: _ints(part) for a, part in re.findall(r"'(\w+)'(:\(\d+\)\d+)?", axes[2] if axes else "")
    }
    ids, stride = np.zeros(1, int), 1
    for axis, whole in reversed(re.findall(r"'(\w+)'=(\d+)", axes[1] if axes else "")):
        if axis in chosen:
            before, n = chosen[axis] or (1, int(whole))
            step = stride * (int(whole) // before // n)
            ids = (np.arange(n)[:, None] * step + ids).reshape(-1)
        stride *= int(whole)
    return tuple(ids.tolist())
