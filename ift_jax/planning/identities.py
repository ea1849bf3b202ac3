"""What is true of the figures of every plan; one that contradicts it is a fault of ours.

A plan cannot be compared with a run, so a figure that is missing or read wrongly looks like any
other. These checks find some of them: a step that sends nothing, a device that holds less than its
arguments, a time in which nothing can be computed.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax

from ift_jax.training.train_program import TrainProgram

# The compiler's memory of a device is up to 0.8% more than the published size (v5p: 95.74 GiB).
MEMORY_TOLERANCE = 1.01


def check_plan(record: dict[str, Any], least_sent: float) -> None:
    """Check the record of a step, see `report.step_record`.

    Args:
        record: The record.
        least_sent: See `least_sent`.

    Raises:
        RuntimeError: Figures contradict each other. It says which ones; the plan is of no use.
    """
    if not record["fits"]:
        return
    contradictions = [*_memory(record["memory"], record["hbm"]), *_time(record)]
    contradictions += _collectives(record, least_sent)
    if contradictions:
        raise RuntimeError(
            f"the plan for {record['topology']} is impossible: {'; '.join(contradictions)}"
        )


def least_sent(program: TrainProgram) -> float:
    """Return a number of bytes that a device sends in a step at the very least.

    Each trained parameter's gradient is summed over all devices that see other tokens, each of
    which sends its share of the sum, or else the activations that the gradient is made of. Both are
    counted with one byte for each number, though no config has so little.
    """
    sizes = dict(program.mesh.shape)
    tensor = sizes.pop("tensor")
    n = math.prod(sizes.values())
    config = program.config
    trained = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(program.state_shapes["params"]))
    rows = config.train.batch_size / config.train.gradient_accumulation_steps
    activations = rows * config.row_lengths.total / n * config.model.d_model
    return min(trained / tensor, activations) * (n - 1) / n


def _memory(memory: dict[str, Any], hbm: float) -> Iterator[str]:
    """Yield what is wrong with the memory of a program that fits."""
    parts = dict(memory["parts"])
    total, live = memory["total"], memory["live"]
    if sum(parts.values()) != total:
        yield f"the parts of the memory add up to {sum(parts.values()):,} bytes, not to {total:,}"
    for name, size in parts.items():
        if size < 0 and name != "not read":
            yield f"{name} take {size:,} bytes"
    held = total - sum(parts[name] for name in ("gradients", "activations, temporaries", "program"))
    if live < held:
        yield f"{live:,} bytes are live, fewer than the {held:,} of arguments and outputs"
    if total > hbm * MEMORY_TOLERANCE:
        yield f"it fits, with {total:,} bytes in a memory of {hbm:,.0f}"


def _time(record: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the estimated time of a step."""
    step = record["compiler_estimate"]
    on_device = step["compute_seconds"] + step["memory_seconds"]
    if not step["seconds"] > 0 or step["seconds"] < on_device * (1 - 1e-6):
        yield f"a step takes {step['seconds']:.3g} s, and its operations {on_device:.3g} s"
    if not 0 <= step["mfu"] <= 1:
        yield f"the MFU is {step['mfu']:.3g}"


def _collectives(record: dict[str, Any], least_sent: float) -> Iterator[str]:
    """Yield what is wrong with the collectives of a step."""
    for one in record["collectives"]:
        if one["bytes_sent"] < 0 or not 1 <= one["group_size"] <= record["devices"]:
            yield f"an {one['kind']} of {one['group_size']} sends {one['bytes_sent']:,} bytes"
    sent = sum(one["bytes_sent"] for one in record["collectives"])
    # What is not counted is reported, and may be the rest.
    if sent < least_sent and not record["not_counted"]:
        yield f"a device sends {sent:,} bytes, and the sum of the gradients needs {least_sent:,.0f}"
