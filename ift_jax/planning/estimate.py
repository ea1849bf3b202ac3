"""The time of a step by the compiler's own costs: an estimate, never a measurement.

The TPU compiler annotates each fusion with the cycles that it expects the fusion to take, memory
included. They are added up over the whole program, loops by their trip counts, so the program that
is planned is the one that is priced, and nothing else is compiled. What has no such annotation is
added: Pallas kernels by their FLOPs at the peak rate, and collectives by their bytes over the links
of the torus.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.models.attention.splash import BLOCK as KERNEL_BLOCK
from ift_jax.models.decoder import softmax_windows
from ift_jax.models.fused_cross_entropy import chunk_length, grouped_shape
from ift_jax.models.model import Model
from ift_jax.planning.chips import Chip
from ift_jax.planning.collectives import Collective, collectives
from ift_jax.planning.executions import count_executions, inner_computations, started_by
from ift_jax.planning.hlo import Computation, Instruction, Module, shape_bytes

# The matrix products of queries, keys, values or their gradients in each splash attention kernel.
KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
# The kernels of grouped products: XLA's of `jax.lax.ragged_dot`, and megablox's for gradients. They
# state the FLOPs of all rows.
GROUPED_KERNELS = ("ragged-dot", "jit(tgmm)")


class KernelShares(NamedTuple):
    """The parts of what the kernels' arguments hold that the kernels compute.

    Attributes:
        attention: Of all pairs of a query and a key, see `visited_share`.
        experts: Of all rows of grouped products. The devices of the mesh axis `expert` gather their
            tokens, and each computes those that chose its experts: its share if all are chosen as
            often.
    """

    attention: float = 1.0
    experts: float = 1.0


ALL_COMPUTED = KernelShares()


@dataclasses.dataclass(frozen=True)
class StepEstimate:
    """A step of one device, in seconds.

    Attributes:
        seconds: The whole step. In the body of each loop, what runs on the device (inner loops
            included) and the collectives beside it, whichever takes longer; then the collectives
            that the device waits for.
        compute_seconds: Matrix products and attention kernels.
        memory_seconds: All else that runs on the device, which mostly waits for memory.
        interconnect_seconds: Every collective, whether or not the device waits for it.
        bound: "compute", "memory" or "interconnect": what accounts for most of `seconds`.
        mfu: Model FLOPs utilization: model_flops / seconds / the peak rate.
        model_flops: The model FLOPs of one device.
        collectives: Every collective of the program.
    """

    seconds: float
    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float
    bound: str
    mfu: float
    model_flops: float
    collectives: list[Collective]


class _DeviceSeconds(NamedTuple):
    """What one run of a computation takes on the device, without the loops in it."""

    compute: float  # Matrix products, and kernels of them.
    memory: float  # All else.


def estimate(
    module: Module,
    chip: Chip,
    devices: Sequence[Any],
    *,
    model_flops: float,
    kernel_shares: KernelShares = ALL_COMPUTED,
    data_trip_count: int = 1,
) -> StepEstimate:
    """Estimate the time of a step.

    Args:
        module: The program of a whole step.
        chip: What one of the devices can do.
        devices: The devices of the mesh, in its order.
        model_flops: The share of one device in `Model.flops_per_token` of all tokens.
        kernel_shares: The parts that the kernels compute.
        data_trip_count: See `count_executions`.
    """
    counts = count_executions(module, data_trip_count)
    own = {name: _device_seconds(module, name, chip, kernel_shares) for name in counts}
    found = collectives(module, data_trip_count)
    beside: dict[str, float] = defaultdict(float)
    waited_for: dict[str, float] = defaultdict(float)
    for collective in found:
        link_seconds = beside if collective.overlaps else waited_for
        link_seconds[collective.computation] += _link_seconds(collective, chip, devices)
    interconnect = sum(beside.values()) + sum(waited_for.values())
    # What a sparse core computes runs beside the computation that starts it.
    starters = started_by(module)
    for name in [name for name in own if name in starters]:
        beside[starters[name]] += counts[name] * sum(own.pop(name))
    not_counted = set(own)

    def all_runs(name: str) -> float:
        """Seconds of all runs of a computation, with all that it runs."""
        not_counted.discard(name)
        inner = [body for body in inner_computations(module, name) if body in not_counted]
        on_device = counts[name] * sum(own[name]) + sum(all_runs(body) for body in inner)
        return max(on_device, beside[name]) + waited_for[name]

    seconds = all_runs(module.entry)
    compute = sum(counts[name] * own[name].compute for name in own)
    memory = sum(counts[name] * own[name].memory for name in own)
    shares = {"compute": compute, "memory": memory, "interconnect": seconds - compute - memory}
    return StepEstimate(
        seconds=seconds,
        compute_seconds=compute,
        memory_seconds=memory,
        interconnect_seconds=interconnect,
        bound=max(shares, key=lambda name: shares[name]),
        mfu=model_flops / seconds / chip.peak_flops,
        model_flops=model_flops,
        collectives=found,
    )


def _device_seconds(
    module: Module, name: str, chip: Chip, kernel_shares: KernelShares
) -> _DeviceSeconds:
    computation = module.computations[name]
    compute = 0.0
    memory = 0.0
    for instruction in computation.values():
        if instruction.opcode == "custom-call":
            flops = _attention_flops(instruction) * kernel_shares.attention
            flops += _grouped_flops(instruction) * kernel_shares.experts
            compute += flops / chip.peak_flops
            continue
        cycles = instruction.attribute(r'"estimated_cycles":"(\d+)"')
        if not cycles:
            continue
        seconds = int(cycles) / chip.clock
        if _is_product(module, instruction):
            compute += seconds
        else:
            # For pure data movement the compiler overestimates the time by about 2.5x. Nothing
            # takes longer than to read and write all its arrays.
            bound = _bytes_touched(computation, instruction) / chip.hbm_bandwidth
            memory += min(seconds, bound)
    return _DeviceSeconds(compute, memory)


def _is_product(module: Module, instruction: Instruction) -> bool:
    """Whether an instruction is a matrix product, or a fusion that contains one."""
    fused = module.computations.get(instruction.fused_computation, {})
    opcodes = {instruction.opcode, *(inner.opcode for inner in fused.values())}
    return bool(opcodes & {"convolution", "dot"})


def _bytes_touched(computation: Computation, instruction: Instruction) -> int:
    """The bytes of an instruction's result and operands."""
    operands = [computation[operand].shape for operand in instruction.operands]
    return sum(map(shape_bytes, (instruction.shape, *operands)))


def _attention_flops(instruction: Instruction) -> float:
    """The FLOPs of a splash kernel over all queries and keys; 0 for another custom call."""
    kernel = instruction.attribute(rf'"tpu_custom_call".*?({"|".join(KERNEL_PRODUCTS)})')
    if not kernel:
        return 0.0
    layouts = instruction.attribute(r"operand_layout_constraints=\{(.*?\})\}")
    operands = re.findall(r"\w+\[([\d,]+)\]", layouts)
    shapes = [[int(n) for n in sizes.split(",")] for sizes in operands]
    # The first operands of three axes are queries and keys; a last axis of 1 is a row's statistic.
    q_HxLxK, k_GxSxK = [shape for shape in shapes if len(shape) == 3 and shape[-1] > 1][:2]
    return 2.0 * KERNEL_PRODUCTS[kernel] * math.prod(q_HxLxK) * k_GxSxK[1]


def _grouped_flops(instruction: Instruction) -> float:
    """The FLOPs of a kernel of grouped products over all rows; 0 for another custom call."""
    if not any(kernel in instruction.attributes for kernel in GROUPED_KERNELS):
        return 0.0
    return float(instruction.attribute(r'"flops":"(\d+)"') or 0)  # Metadata has none.


def _link_seconds(collective: Collective, chip: Chip, devices: Sequence[Any]) -> float:
    """The time of all executions, if nothing else is on the links between the group's devices."""
    if collective.crosses_slices:
        return collective.bytes_sent / chip.dcn_bandwidth
    coordinates = np.array([devices[i].coords for i in collective.group])
    if collective.ring:
        # A ring passes parts both ways, so both directions of a link are in use.
        hops = np.abs(np.diff(coordinates, axis=0)).sum(axis=1).max(initial=1)
        return float(collective.bytes_sent * hops / (2 * chip.ici_bandwidth))
    axis_sizes = 1 + np.array([device.coords for device in devices]).max(axis=0)
    spans_axis = np.ptp(coordinates, axis=0) > 0
    # Half of the bytes pass the middle of a line in one direction. An axis that is closed to a ring
    # has a second way.
    links_per_axis = np.where(axis_sizes % chip.wraps == 0, 2, 1)
    links = max(int(links_per_axis[spans_axis].sum()), 1)
    return collective.bytes_sent / (links * chip.ici_bandwidth)


def visited_share(model: Model, length: int) -> float:
    """Return the share of query-key pairs in blocks that splash attention visits.

    A block with one visible pair is computed as a whole.

    Args:
        model: The model, whose layers may have sliding windows.
        length: The tokens of a row, one example that fills it.
    """
    if not isinstance(model.config, DecoderConfig):
        return 1.0
    n_blocks = -(-length // KERNEL_BLOCK)
    first_query_B = np.arange(n_blocks) * KERNEL_BLOCK
    windows = softmax_windows(model.config)
    if not len(windows):
        return 1.0
    windows_Nx1 = np.minimum(windows[:, None], length)
    first_visible_NxB = np.maximum(first_query_B - windows_Nx1 + 1, 0)
    visited_NxB = np.arange(n_blocks) + 1 - first_visible_NxB // KERNEL_BLOCK
    return float(visited_NxB.mean() / n_blocks)


def head_trip_count(config: Config) -> int:
    """Return the trip count of the output head's loop if every position is trained.

    It is the `data_trip_count` of a train step. The step's mesh must be set: the rows of the head
    depend on it, and the chunks on its platform.
    """
    rows = config.train.batch_size // config.train.gradient_accumulation_steps
    _, length = grouped_shape(rows, config.row_lengths.decoder)
    return -(-length // chunk_length(length, config.model.vocab_size, config.loss.chunk))
