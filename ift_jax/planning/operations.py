"""Operations of a compiled program that no figure of a plan counts, so that they are reported.

A compiler may express a transfer between devices, or a kernel, in a new way. Passed over in
silence, it would make a plan too good: a step that communicates would seem not to.
"""

import dataclasses
from collections.abc import Iterator

from ift_jax.planning.collectives import collective_kind
from ift_jax.planning.estimate import GROUPED_KERNELS, KERNEL_PRODUCTS
from ift_jax.planning.executions import count_executions, fused_computations
from ift_jax.planning.hlo import STARTS, Computation, Instruction, Module, shape_bytes

# Opcodes of XLA (xla/hlo/ir/hlo_opcode.h) that stay on a device.
_LOCAL = frozenset(
    """
    abs acos acosh add add-dependency after-all and asin asinh atan2 atanh batch-norm-grad
    batch-norm-inference batch-norm-training bitcast bitcast-convert broadcast call cbrt ceil
    cholesky clamp compare complex concatenate conditional constant convert convolution copy cosine
    cosh count-leading-zeros divide domain dot dynamic-reshape dynamic-slice
    dynamic-update-slice erf exponential exponential-minus-one fft floor fusion gather
    get-dimension-size get-tuple-element imag iota is-finite log log-plus-one logistic map maximum
    minimum multiply negate not opt-barrier optimization-barrier or pad parameter partition-id
    popcnt power ragged-dot real reduce reduce-precision reduce-window remainder replica-id reshape
    reverse rng rng-bit-generator rng-get-and-update-state round-nearest-afz round-nearest-even
    rsqrt scaled-dot scatter select select-and-scatter set-dimension-size shift-left
    shift-right-arithmetic shift-right-logical sign sine sinh slice sort sqrt stochastic-convert
    subtract tan tanh topk transpose triangular-solve tuple while xor
    """.split()
)
# Custom calls of the compiler that prepare something, or mark what others do.
_LOCAL_CUSTOM_CALLS = (
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "AsyncCollectiveDone",
    "AsyncCollectiveStart",
    "ConcatBitcast",
    "GatherScatterIndicesBitpacked",
    "PrepareAsyncCallDone",
    "PrepareAsyncCallStart",
    "ZeroCrop",
)
# The other end of a send, which is what is counted.
_RECEIVING = ("recv", "recv-done")


@dataclasses.dataclass(frozen=True)
class Uncounted:
    """Operations of one kind that no figure of a plan counts.

    Attributes:
        operation: The opcode, such as "ragged-all-to-all", and what a custom call runs.
        executions: How often a step executes it; 0 if nothing is known to start it.
        n_bytes: The bytes of its operands, or else of its result, all executions (at least one)
            together.
    """

    operation: str
    executions: int
    n_bytes: int


def uncounted(module: Module, data_trip_count: int = 1) -> list[Uncounted]:
    """Return what is neither known to stay on the device nor among the `collectives`.

    These are operations of an unknown kind, custom calls and Pallas kernels that have no estimate,
    and collectives in a computation that nothing known executes.

    Args:
        module: The program.
        data_trip_count: As in `count_executions`.
    """
    counts = dict(count_executions(module, data_trip_count))
    for name in list(counts):
        counts |= dict.fromkeys(fused_computations(module, name), counts[name])
    found: dict[str, Uncounted] = {}
    for name, computation in module.computations.items():
        executions = counts.get(name, 0)
        for operation, n_bytes in _of_computation(computation, is_reached=name in counts):
            before = found.get(operation, Uncounted(operation, 0, 0))
            found[operation] = Uncounted(
                operation,
                before.executions + executions,
                before.n_bytes + n_bytes * max(executions, 1),
            )
    return list(found.values())


def _of_computation(computation: Computation, is_reached: bool) -> Iterator[tuple[str, int]]:
    """Yield the operations of a computation that are not counted, with their bytes."""
    for instruction in computation.values():
        is_counted = is_reached and collective_kind(instruction)
        if is_counted or _stays_on_device(instruction):
            continue
        operands = [computation[name].shape for name in instruction.operands if name in computation]
        # What receives something has it in its result.
        n_bytes = sum(map(shape_bytes, operands)) or shape_bytes(instruction.shape)
        if n_bytes:
            yield f"{instruction.opcode} {_target(instruction)}".rstrip(), n_bytes


def _target(instruction: Instruction) -> str:
    """Return what a custom call runs, or ""."""
    return instruction.attribute(r'custom_call_target="([^"]*)"')


def _stays_on_device(instruction: Instruction) -> bool:
    """Whether an operation is known to move nothing between devices, or ends one that does."""
    opcode = instruction.opcode
    if opcode == "custom-call":
        target = _target(instruction)
        return target in _LOCAL_CUSTOM_CALLS or any(
            kernel in instruction.attributes for kernel in (*KERNEL_PRODUCTS, *GROUPED_KERNELS)
        )
    if opcode in _LOCAL or opcode in _RECEIVING or opcode in STARTS:
        return True
    if opcode.endswith("-done") or opcode == "async-update":  # What starts it is looked at.
        return True
    return opcode.endswith("-start") and opcode.removesuffix("-start") in _LOCAL
