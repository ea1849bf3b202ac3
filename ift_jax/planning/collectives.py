"""The collectives of a compiled TPU program: their kinds, their number, and the bytes they send.

The TPU compiler rewrites collectives, and each one is counted once, as what it does:

* A product with a gathered or scattered matrix becomes a loop that passes parts around a ring (a
  "windowed dot general").
* A reduce-scatter becomes a fusion that contains an all-reduce.
* An asynchronous collective becomes several pieces.
* On tpu7x most collectives run on the sparse cores: each is a computation of its own, which a
  `call-start` starts.
"""

import dataclasses

from ift_jax.planning.executions import count_executions, fused_computations, started_by
from ift_jax.planning.hlo import Computation, Instruction, Module, array_shapes, shape_bytes
from ift_jax.planning.replica_groups import first_group, integers

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

# The name of a ring's loop contains one of these -> what the loop does.
RINGS = {
    "windowed_dot_general_body_ag": "all-gather",
    "windowed_dot_general_body_rs": "reduce-scatter",
}
_RING_BODY = rf"body=%?[\w.-]*?({'|'.join(RINGS)})"
# A send over the data center's network, to other slices.
_TRANSFER_TYPE = r'_xla_megascale_transfer_type="(\w+)"'
_TRANSFER_TARGETS = r'_xla_megascale_target="\{([\d,]+)\}'
# Instructions that hand on the values that they take.
_FORWARDING = ("collective-permute-done", "copy", "bitcast", "reshape", "tuple", "while")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction and all its executions in a step.

    Attributes:
        kind: One of KINDS.
        executions: How often a step executes it.
        bytes_sent: The bytes that a device sends in a step, all executions together, if the n
            devices of the group form a ring and each puts in b bytes: all-gather b (n - 1),
            reduce-scatter and all-to-all b (n - 1) / n, all-reduce twice that, collective-permute
            b.
        group_size: The devices that take part together; slices, if it crosses them.
        dtype: As HLO spells it: "bf16", "f32".
        crosses_slices: Whether it goes over the data center's network.
        computation: The computation that executes it, or that starts what executes it.
        overlaps: Whether the device computes in the meantime.
        ring: Whether parts are passed on to a neighbor.
        group: The first of its groups: devices by their index in the mesh.
    """

    kind: str
    executions: int
    bytes_sent: int
    group_size: int
    dtype: str
    crosses_slices: bool
    computation: str
    overlaps: bool
    ring: bool
    group: tuple[int, ...]


def collectives(module: Module, data_trip_count: int = 1) -> list[Collective]:
    """Return every collective of a program; `data_trip_count` as in `count_executions`."""
    found = []
    starters = started_by(module)
    for name, executions in count_executions(module, data_trip_count).items():
        for holder in (name, *fused_computations(module, name)):
            for instruction in module.computations[holder].values():
                is_started = name in starters
                place = _Place(module, starters.get(name, name), holder, instruction, is_started)
                if kind := place.kind():
                    found.append(place.collective(kind, executions))
    return found


def collective_kind(instruction: Instruction) -> str:
    """Return which of KINDS an instruction is by its opcode, or "" if it is none."""
    kind = instruction.opcode.removesuffix("-start")
    if instruction.opcode == "send":
        kind = instruction.attribute(_TRANSFER_TYPE).lower().replace("_", "-")
    return kind if kind in KINDS else ""


@dataclasses.dataclass(frozen=True)
class _Place:
    """An instruction and where it stands.

    Attributes:
        module: The program.
        computation: The name of the computation that executes the instruction, or that starts what
            executes it.
        holder: The name of the computation that contains it: the one that executes it, or a fusion
            in it.
        instruction: The instruction.
        is_started: Whether it runs beside `computation`.
    """

    module: Module
    computation: str
    holder: str
    instruction: Instruction
    is_started: bool

    def kind(self) -> str:
        """Return which of KINDS the instruction is, or "" if it is none."""
        instruction = self.instruction
        kind = collective_kind(instruction)
        if not kind:
            return ""
        is_piece = "async_collective_fusion_config" in instruction.attributes
        if is_piece and not self._starts_collective():
            return ""  # A later piece of a collective that another fusion starts.
        if kind == "all-reduce" and "all-reduce-scatter" in self.holder:
            return "reduce-scatter"
        if kind == "collective-permute":
            return self._ring() or kind
        return kind

    def collective(self, kind: str, executions: int) -> Collective:
        """Return the collective that the instruction is."""
        instruction = self.instruction
        in_holder = self.module.computations[self.holder]
        shapes = [in_holder[operand].shape for operand in instruction.operands]
        put_in = sum(map(shape_bytes, shapes))
        crosses_slices = instruction.opcode == "send"
        group = first_group(instruction)
        if crosses_slices:
            group_size = len(integers(instruction.attribute(_TRANSFER_TARGETS)))
        else:
            group_size = len(group)
        ring = instruction.opcode.startswith("collective-permute")
        factor = 1.0 if ring else _sent_per_byte(kind, group_size)
        return Collective(
            kind=kind,
            executions=executions,
            bytes_sent=round(put_in * factor) * executions,
            group_size=group_size,
            dtype=array_shapes(shapes[0])[0].dtype,
            crosses_slices=crosses_slices,
            computation=self.computation,
            overlaps=crosses_slices
            or self.is_started
            or instruction.opcode.endswith("-start")
            or self._starts_collective(),
            ring=ring,
            group=group,
        )

    def _starts_collective(self) -> bool:
        """Whether the holder starts a collective that runs beside the products of others."""
        in_holder = self.module.computations[self.holder].values()
        return any("AsyncCollectiveStart" in other.attributes for other in in_holder)

    def _ring(self) -> str:
        """Return what the ring does that a permute belongs to, or "" if it belongs to none."""
        for ring, kind in RINGS.items():
            if ring in self.computation:
                return kind
        return _ring_beside(self.module.computations[self.computation], self.instruction)


def _sent_per_byte(kind: str, n: int) -> float:
    """The bytes that a device sends for each byte that it puts in, around a ring of n devices."""
    share = (n - 1) / n
    return {"all-gather": n - 1, "all-reduce": 2 * share}.get(kind, share)


def _ring_beside(computation: Computation, permute: Instruction) -> str:
    """Return what the ring does whose loop a permute begins or ends, or "".

    A permute begins a ring if its result reaches the loop, and ends one if it takes the loop's.
    """
    rings = {
        instruction.name: RINGS[ring]
        for instruction in computation.values()
        if instruction.opcode == "while" and (ring := instruction.attribute(_RING_BODY))
    }
    reached = {permute.name, *permute.operands}
    for instruction in computation.values():  # In the order of the program: users come later.
        if instruction.name in reached and instruction.opcode == "get-tuple-element":
            reached.update(instruction.operands)
        if reached.intersection(instruction.operands) and instruction.opcode in _FORWARDING:
            reached.add(instruction.name)
    kinds = {rings[name] for name in reached if name in rings}
    return kinds.pop() if len(kinds) == 1 else ""
