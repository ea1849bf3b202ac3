"""How long a step takes by the compiler's own costs: an estimate, never a measurement.

The TPU compiler writes beside each fusion the cycles that it expects it to take, memory included.
They are added up over the whole program, loops by their turns, so the program that is planned is
the one that is priced: nothing else is compiled. What has no such cost is added: Pallas kernels by
their FLOPs at the peak rate, collectives by their bytes over the links of the torus.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.models.attention.splash import BLOCK as KERNEL_BLOCK
from ift_jax.models.decoder import layer_windows
from ift_jax.models.fused_cross_entropy import chunk_length, grouped_shape
from ift_jax.models.model import Model
from ift_jax.planning.chips import Chip
from ift_jax.planning.collectives import Collective, collectives
from ift_jax.planning.hlo import Instruction, Module, size

# Products of queries, keys or values in each of splash attention's kernels.
KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


@dataclasses.dataclass(frozen=True)
class StepEstimate:
    """A step of one device, in seconds."""

    # In each loop's body what runs on the device, inner loops among it, beside the collectives that
    # go on in the meantime, whichever takes longer; then those that stop it.
    seconds: float
    compute_seconds: float  # Matrix products and attention kernels.
    memory_seconds: float  # All else that runs on the device: it mostly waits for memory.
    interconnect_seconds: float  # Every collective, whether or not the device waits for it.
    bound: str  # "compute", "memory" or "interconnect": what makes up most of `seconds`.
    mfu: float  # Model FLOP utilisation: model_flops / seconds / peak.
    model_flops: float  # Of one device.
    collectives: list[Collective]  # Every one of the program.


def estimate(
    module: Module,
    chip: Chip,
    devices: Sequence[Any],
    *,
    model_flops: float,
    kernel_share: float = 1.0,
    data_turns: int = 1,
) -> StepEstimate:
    """Of the program of a whole step.

    `devices` are those of the mesh, in its order; `model_flops` is what one of them does of
    `Model.flops_per_token`; `kernel_share` is the share of queries times keys that the attention
    kernels compute (`visited_share`), `data_turns` as in `Module.executions`.
    """
    counts = module.executions(data_turns)
    own = {name: _device_seconds(module, name, chip, kernel_share) for name in counts}
    links: dict[tuple[str, bool], float] = defaultdict(float)
    every = collectives(module, data_turns)
    for one in every:
        links[one.computation, one.overlaps] += _seconds(one, chip, devices)
    left = set(counts)

    def whole(name: str) -> float:
        """All runs of a computation, and of the loops in it."""
        left.discard(name)
        inside = sum(whole(body) for body in module.inner(name) if body in left)
        return max(counts[name] * sum(own[name]) + inside, links[name, True]) + links[name, False]

    seconds, interconnect = whole(module.entry), sum(links.values())
    compute, memory = (sum(counts[name] * own[name][i] for name in counts) for i in (0, 1))
    parts = {"compute": compute, "memory": memory, "interconnect": seconds - compute - memory}
    return StepEstimate(
        seconds,
        compute,
        memory,
        interconnect,
        max(parts, key=lambda part: parts[part]),
        model_flops / seconds / chip.peak_flops,
        model_flops,
        every,
    )


def visited_share(model: Model, length: int) -> float:
    """Of the pairs of a query and a key of a row, those in blocks that splash attention visits."""
    if not isinstance(model.config, DecoderConfig):
        return 1.0
    n = -(-length // KERNEL_BLOCK)
    # A block that holds one visible pair is computed whole.
    starts = np.arange(n) * KERNEL_BLOCK  # Of the blocks of queries; the first key that each sees:
    first = np.maximum(starts - np.minimum(layer_windows(model.config)[:, None], length) + 1, 0)
    visited = np.arange(n) + 1 - first // KERNEL_BLOCK
    return float(visited.mean() / n)


def _device_seconds(module: Module, name: str, chip: Chip, share: float) -> tuple[float, float]:
    """One run of a computation: (products and kernels, all else)."""
    products = others = 0.0
    for one in module.computations[name].values():
        cycles = one.attribute(r'"estimated_cycles":"(\d+)"')
        called = module.computations.get(one.calls, {})
        if one.opcode == "custom-call":
            products += _kernel_flops(one) * share / chip.peak_flops
        elif cycles and {"convolution", "dot"} & {one.opcode, *(i.opcode for i in called.values())}:
            products += int(cycles) / chip.clock
        elif cycles:
            # Of what only moves data the compiler thinks 2.5 times too ill: no op takes longer
            # than to read and write all its arrays.
            shapes = (one.shape, *(module.computations[name][o].shape for o in one.operands))
            others += min(int(cycles) / chip.clock, sum(map(size, shapes)) / chip.hbm_bandwidth)
    return products, others


def _kernel_flops(one: Instruction) -> float:
    """Of a splash kernel over all queries and keys; 0 of another custom call."""
    kernel = one.attribute(rf'"tpu_custom_call".*?({"|".join(KERNEL_PRODUCTS)})')
    if not kernel:
        return 0.0
    given = re.findall(r"\w+\[([\d,]+)\]", one.attribute(r"operand_layout_constraints=\{(.*?\})\}"))
    shapes = [[int(n) for n in sizes.split(",")] for sizes in given]
    q_HxLxK, k_GxSxK = [shape for shape in shapes if len(shape) == 3 and shape[-1] > 1][:2]
    return 2.0 * KERNEL_PRODUCTS[kernel] * math.prod(q_HxLxK) * k_GxSxK[1]


def _seconds(one: Collective, chip: Chip, devices: Sequence[Any]) -> float:
    """Of all executions, nothing else on the links, over those that join the group's devices."""
    if one.crosses_slices:
        return one.bytes_sent / chip.dcn_bandwidth
    places = np.array([devices[i].coords for i in one.group])
    if one.ring:
        # Both directions of a link are in use: a ring passes parts both ways.
        hops = np.abs(np.diff(places, axis=0)).sum(axis=1).max(initial=1)
        return float(one.bytes_sent * hops / (2 * chip.ici_bandwidth))
    sizes = 1 + np.array([device.coords for device in devices]).max(axis=0)
    # Along a line half of the bytes pass the middle one way; a ring has a way round.
    links = np.where(sizes % chip.wraps == 0, 2, 1)[np.ptp(places, axis=0) > 0].sum()
    return one.bytes_sent / (max(int(links), 1) * chip.ici_bandwidth)


def head_turns(config: Config) -> int:
    """Turns of the output head's loop (the `data_turns` of a step) if every position is trained.

    The step's mesh must be set.
    """
    rows = config.train.batch_size // config.train.gradient_accumulation_steps
    _, length = grouped_shape(rows, config.row_lengths.decoder)
    return -(-length // chunk_length(length, config.model.vocab_size, config.loss.chunk))
