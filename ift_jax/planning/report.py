"""What `ift plan` reports: a record that JSON can hold, and the same as lines of text."""

import dataclasses
import importlib.metadata
from typing import Any, NamedTuple

import jax

from ift_jax.errors import counted
from ift_jax.models.remat import chosen_policy
from ift_jax.planning.chips import Chip, chips
from ift_jax.planning.collectives import KINDS
from ift_jax.planning.compile_step import Compiled, model_flops
from ift_jax.planning.estimate import KernelShares, estimate, head_trip_count, visited_share
from ift_jax.planning.hlo import Module
from ift_jax.planning.identities import check_plan, least_sent
from ift_jax.planning.operations import uncounted
from ift_jax.sharding.mesh import config_sizes, describe_mesh
from ift_jax.training.train_program import TrainProgram

GIB = 2**30


def memory_record(compiled: Compiled) -> dict[str, Any]:
    """Return whether a program fits, and its bytes on a device."""
    return {
        "fits": compiled.executable is not None,
        "refusal": compiled.refusal,
        "compile_seconds": compiled.seconds,
        "memory": compiled.memory,
    }


def step_record(
    program: TrainProgram, compiled: Compiled, topology: str, slices: int
) -> dict[str, Any]:
    """Return all that is known of a compiled train step; memory in bytes on a device.

    Raises:
        RuntimeError: See `check_plan`.
    """
    config = program.config
    chip = chips()[topology.partition(":")[0]]
    with jax.set_mesh(program.mesh):
        remat = chosen_policy(config.model.remat)
    record = {
        "topology": topology,
        "slices": slices,
        "devices": program.mesh.size,
        "mesh": config_sizes(program.mesh),
        "parameters": program.model.n_params,
        "dtype": config.model.dtype,
        "remat": remat,
        "rows": config.train.batch_size,
        "gradient_accumulation_steps": config.train.gradient_accumulation_steps,
        "tokens": config.train.batch_size * config.row_lengths.total,
        **memory_record(compiled),
        "hbm": chip.hbm_bytes,
        "model_flops": model_flops(program),
    }
    if compiled.executable is not None:
        record |= _costs(program, compiled.executable.as_text(), chip)
    record["versions"] = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    check_plan(record, least_sent(program))
    return record


def _costs(program: TrainProgram, text: str, chip: Chip) -> dict[str, Any]:
    """Return the collectives and the estimated time of a step, from a program's text."""
    mesh = program.mesh
    module = Module(text)
    with jax.set_mesh(mesh):
        data_trip_count = head_trip_count(program.config)
    found = estimate(
        module,
        chip,
        list(mesh.devices.flat),
        model_flops=model_flops(program) / mesh.size,
        kernel_shares=KernelShares(
            attention=visited_share(program.model, program.config.row_lengths.decoder),
            experts=1 / program.mesh.shape["expert"],
        ),
        data_trip_count=data_trip_count,
    )
    step = dataclasses.asdict(found)
    collectives = step.pop("collectives")
    for collective in collectives:
        del collective["group"]  # A long list of devices.
    not_counted = [dataclasses.asdict(one) for one in uncounted(module, data_trip_count)]
    return {"collectives": collectives, "not_counted": not_counted, "compiler_estimate": step}


class Sent(NamedTuple):
    """The collectives of one kind in a step.

    Attributes:
        executions: Their number.
        n_bytes: The bytes that a device sends in them.
    """

    executions: int
    n_bytes: int


def sent_by_kind(record: dict[str, Any]) -> dict[str, Sent]:
    """Return what a device sends in a step, by the kind of collective."""
    sent = {}
    for kind in KINDS:
        of_kind = [one for one in record["collectives"] if one["kind"] == kind]
        if of_kind:
            executions = sum(one["executions"] for one in of_kind)
            sent[kind] = Sent(executions, sum(one["bytes_sent"] for one in of_kind))
    return sent


def lines(record: dict[str, Any]) -> list[str]:
    """Return the record as lines of text."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    slices = f"{record['slices']} slices of " if record["slices"] > 1 else ""
    text = [
        f"{record['parameters']:,} parameters, {record['dtype']}; "
        f"{counted(record['rows'], 'row')}, {counted(record['tokens'], 'token')} per step; "
        f"mesh {describe_mesh(record['mesh'])}, "
        f"remat {record['remat']}, {record['gradient_accumulation_steps']} microbatches",
        f"{slices}{record['topology']}, {counted(record['devices'], 'device')}; "
        f"compiled by {versions}",
        *_memory_lines("train step", record),
        f"model FLOPs of a step with full rows: {record['model_flops']:.3g}",
    ]
    if record["fits"]:
        text += _collective_lines(record)
        text.append(_estimate_line(record["compiler_estimate"]))
        text += _not_counted_lines(record)
    for name, part in record.get("generation", {}).items():
        text += _memory_lines(name, part)
    return text


def _memory_lines(name: str, record: dict[str, Any]) -> list[str]:
    result = "fits" if record["fits"] else f"does not fit: {record['refusal']}"
    sizes = dict(record["memory"])
    sizes = sizes.pop("parts") | sizes
    return [
        f"{name}: {result} (compiled in {record['compile_seconds']:.0f} s)",
        "  memory on a device, GiB:",
        *(f"    {part:<26}{size / GIB:>9.3f}" for part, size in sizes.items()),
    ]


def _collective_lines(record: dict[str, Any]) -> list[str]:
    text = ["collectives of a step, GiB that a device sends:"]
    for kind, sent in sent_by_kind(record).items():
        text.append(f"    {kind:<26}{sent.n_bytes / GIB:>9.3f} in {sent.executions:,}")
    between_slices = [one["bytes_sent"] for one in record["collectives"] if one["crosses_slices"]]
    if sum(between_slices):
        text.append(f"    {'of which between slices':<26}{sum(between_slices) / GIB:>9.3f}")
    return text


def _not_counted_lines(record: dict[str, Any]) -> list[str]:
    """The operations that no figure above counts: the program does more than the plan says."""
    if not record["not_counted"]:
        return []
    return [
        "operations that are counted nowhere above, as it is not known what they do (GiB of their "
        "operands): please report them",
        *(
            f"    {one['operation']:<26}{one['n_bytes'] / GIB:>9.3f} in {one['executions']:,}"
            for one in record["not_counted"]
        ),
    ]


def _estimate_line(step: dict[str, Any]) -> str:
    return (
        f"compiler estimate, not a measurement: {step['seconds']:.3g} s per step, MFU "
        f"{step['mfu']:.0%}, bound by {step['bound']}; matrix products "
        f"{step['compute_seconds']:.3g} s, other work {step['memory_seconds']:.3g} s, collectives "
        f"{step['interconnect_seconds']:.3g} s"
    )


def ranking(records: list[dict[str, Any]]) -> list[str]:
    """Return what a search found: a headline, the names of the columns, and a line for each."""
    text = [
        f"{len(records)} fit; the time of a step is the compiler's estimate, not a measurement:",
        _row("mesh", "remat", "microbatches", "GiB per device", "s per step", "MFU", "bound by"),
    ]
    for record in records:
        step = record["compiler_estimate"]
        text.append(
            _row(
                describe_mesh(record["mesh"]),
                record["remat"],
                str(record["gradient_accumulation_steps"]),
                f"{record['memory']['total'] / GIB:.2f}",
                f"{step['seconds']:.3g}",
                f"{step['mfu']:.0%}",
                step["bound"],
            )
        )
    return text


def _row(
    mesh: str, remat: str, microbatches: str, memory: str, seconds: str, mfu: str, bound: str
) -> str:
    """A line of the ranking, in columns."""
    return (
        f"  {mesh:<36} {remat:<15} {microbatches:>12} {memory:>14} {seconds:>10} {mfu:>5}  {bound}"
    )
