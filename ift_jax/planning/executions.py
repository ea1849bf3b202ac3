"""How often a step executes each computation of a compiled program.

XLA's own cost analysis counts the body of a loop once. Here loops are followed with the trip counts
that their conditions imply, so that the costs of instructions can be added up over a step.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ift_jax.planning.hlo import Computation, Instruction, Module

# The integers in a tuple by their indices, as far as they are known.
KnownIntegers = dict[int, int]

_CALLED = r"(?:calls|to_apply|called_computations)=\{?%?([\w.-]+)"


class _Loop(NamedTuple):
    """What is known of a loop.

    Attributes:
        trip_count: How often its body runs; None: its data decide.
        invariant: The integers of its state that no iteration changes.
    """

    trip_count: int | None
    invariant: KnownIntegers


def count_executions(module: Module, data_trip_count: int = 1) -> Counter[str]:
    """Return how often a step runs each computation that is not part of a fusion.

    Args:
        module: The program.
        data_trip_count: The trip count that is assumed for loops whose data decide. All branches of
            a conditional are counted.
    """
    counts: Counter[str] = Counter()
    for name, times in _runs(module, module.entry, 1, {}, data_trip_count):
        counts[name] += times
    return counts


def inner_computations(module: Module, name: str) -> list[str]:
    """Return the bodies of the loops in a computation, and the computations that it calls.

    Those that it starts are not among them: they run beside it, see `started_by`.
    """
    inner: list[str] = []
    for instruction in module.computations[name].values():
        if instruction.opcode == "while":
            inner.append(instruction.loop_body)
        else:
            inner += instruction.called_computations
    return inner


def fused_computations(module: Module, name: str) -> list[str]:
    """Return the computations that the fusions in a computation consist of, inner ones included."""
    found = []
    for instruction in module.computations[name].values():
        if instruction.opcode == "fusion":
            fused = instruction.fused_computation
            found += [fused, *fused_computations(module, fused)]
    return found


def started_by(module: Module) -> dict[str, str]:
    """Return the computations that run beside another one, and which one starts each."""
    starters = {
        started: name
        for name, computation in module.computations.items()
        for instruction in computation.values()
        if (started := instruction.started_computation)
    }
    # What a started computation runs belongs to it, such as the body of a loop.
    waiting = list(starters)
    while waiting:
        name = waiting.pop()
        for inner in inner_computations(module, name):
            if inner not in starters:
                starters[inner] = starters[name]
                waiting.append(inner)
    # One that is itself started leads to the one that waits for neither.
    for name, starter in starters.items():
        while starter in starters:
            starter = starters[starter]
        starters[name] = starter
    return starters


def _runs(
    module: Module, name: str, times: int, known: KnownIntegers, data_trip_count: int
) -> Iterator[tuple[str, int]]:
    """Yield a computation and all that it runs, with the number of times.

    Args:
        module: The program.
        name: The computation.
        times: How often it runs.
        known: The integers in its parameter.
        data_trip_count: See `count_executions`.
    """
    yield name, times
    computation = module.computations[name]
    for instruction in computation.values():
        if instruction.opcode == "while":
            start = _tuple_integers(module, computation, instruction.operands[0], known)
            loop = _follow_loop(module, instruction, start)
            trips = data_trip_count if loop.trip_count is None else loop.trip_count
            body = instruction.loop_body
            yield from _runs(module, body, times * trips, loop.invariant, data_trip_count)
        else:
            started = instruction.started_computation
            for called in (*instruction.called_computations, *([started] if started else [])):
                yield from _runs(module, called, times, {}, data_trip_count)


def _follow_loop(module: Module, loop: Instruction, start: KnownIntegers) -> _Loop:
    """Return what is known of a loop that begins with these integers in its state."""
    body = loop.loop_body
    after = _tuple_integers(module, module.computations[body], module.root(body).name, start)
    invariant = {index: n for index, n in start.items() if after.get(index) == n}
    steps = {index: after[index] - n for index, n in start.items() if index in after}

    condition = module.computations[loop.loop_condition]
    compare = module.root(loop.loop_condition)
    if compare.opcode != "compare" or "direction=LT" not in compare.attributes:
        return _Loop(None, invariant)
    counter, bound = compare.operands
    index = condition[counter].attribute(r"index=(\d+)")
    position = int(index) if index else -1
    end = _integer(module, condition, bound, start)
    if end is None or steps.get(position, 0) <= 0:
        return _Loop(None, invariant)
    trip_count = -(-(end - start[position]) // steps[position])
    return _Loop(max(0, trip_count), invariant)


def _tuple_integers(
    module: Module, computation: Computation, name: str, known: KnownIntegers
) -> KnownIntegers:
    """Return the integers in the tuple that an instruction gives."""
    instruction = computation[name]
    if instruction.opcode == "parameter":
        return known
    if instruction.opcode != "tuple":
        return {}
    values = [_integer(module, computation, operand, known) for operand in instruction.operands]
    return {index: n for index, n in enumerate(values) if n is not None}


def _integer(
    module: Module, computation: Computation, name: str, known: KnownIntegers
) -> int | None:
    """Return the integer scalar that an instruction gives, or None if it is not known.

    Args:
        module: The program.
        computation: The computation that the instruction is in.
        name: The instruction.
        known: The integers in the parameter of the computation.
    """
    instruction = computation[name]
    opcode = instruction.opcode
    if not re.match(r"[su]\d+\[\]", instruction.shape):
        return None
    if opcode == "constant":
        return int(instruction.arguments)
    if opcode == "parameter":
        return known.get(int(instruction.arguments))
    if opcode == "get-tuple-element":
        if computation[instruction.operands[0]].opcode != "parameter":
            return None
        return known.get(int(instruction.attribute(r"index=(\d+)")))
    values = [_integer(module, computation, operand, known) for operand in instruction.operands]
    if opcode == "fusion":
        fused = instruction.attribute(_CALLED)
        given = {i: n for i, n in enumerate(values) if n is not None}
        return _integer(module, module.computations[fused], module.root(fused).name, given)
    numbers = [n for n in values if n is not None]
    if len(numbers) < len(values):
        return None
    if opcode in ("copy", "bitcast", "convert", "add"):
        return sum(numbers)
    return numbers[0] - numbers[1] if opcode == "subtract" else None
