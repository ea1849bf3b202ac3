"""What `ift plan` says: a record that JSON can hold, and the same as lines."""

import dataclasses
import importlib.metadata
from typing import Any

import jax

from ift_jax.planning.chips import Chip, chips
from ift_jax.planning.collectives import KINDS
from ift_jax.planning.compile_step import Compiled, model_flops
from ift_jax.planning.estimate import estimate, head_turns, visited_share
from ift_jax.planning.hlo import Module
from ift_jax.sharding.mesh import config_sizes, describe_mesh
from ift_jax.training.train_program import TrainProgram

GIB = 2**30


def memory_of(compiled: Compiled) -> dict[str, Any]:
    """Whether it fits, and the bytes a device: of what is known, where it does not."""
    return {
        "fits": compiled.executable is not None,
        "refusal": compiled.refusal,
        "compile_seconds": compiled.seconds,
        "memory": compiled.memory,
    }


def record_of(
    program: TrainProgram, compiled: Compiled, topology: str, slices: int
) -> dict[str, Any]:
    """Everything that is known of a compiled train step; memory in bytes a device."""
    config, chip = program.config, chips()[topology.partition(":")[0]]
    rows, text = config.train.batch_size, compiled.executable and compiled.executable.as_text()
    return {
        "topology": topology,
        "slices": slices,
        "devices": program.mesh.size,
        "mesh": config_sizes(program.mesh),
        "parameters": program.model.n_params,
        "dtype": config.model.dtype,
        "remat": config.model.remat,
        "rows": rows,
        "gradient_accumulation_steps": config.train.gradient_accumulation_steps,
        "tokens": rows * config.row_lengths.total,
        **memory_of(compiled),
        "hbm": chip.hbm_bytes,
        "model_flops": model_flops(program),
        **(costs(program, text, chip) if text else {}),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "libtpu")},
    }


def costs(program: TrainProgram, text: str, chip: Chip) -> dict[str, Any]:
    """Collectives and the estimate of a step's time, from a compiled program's text."""
    mesh, module = program.mesh, Module(text)
    with jax.set_mesh(mesh):  # It decides on the rows of the head, and its platform on the chunks.
        turns = head_turns(program.config)
    step = dataclasses.asdict(
        estimate(
            module,
            chip,
            list(mesh.devices.flat),
            model_flops=model_flops(program) / mesh.size,
            kernel_share=visited_share(program.model, program.config.row_lengths.decoder),
            data_turns=turns,
        )
    )
    found = step.pop("collectives")
    for one in found:
        del one["group"]  # A long list of devices.
    return {"collectives": found, "compiler_estimate": step}


def sent_by_kind(record: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Kind of collective -> executions a step, bytes that a device sends in them."""
    of_kind = {k: [one for one in record["collectives"] if one["kind"] == k] for k in KINDS}
    return {
        kind: (sum(one["executions"] for one in ones), sum(one["bytes_sent"] for one in ones))
        for kind, ones in of_kind.items()
        if ones
    }


def lines(record: dict[str, Any]) -> list[str]:
    """The record for a reader."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    slices = f"{record['slices']} slices of " if record["slices"] > 1 else ""
    found = [
        f"{record['parameters']:,} parameters, {record['dtype']}; {record['rows']:,} rows, "
        f"{record['tokens']:,} tokens a step; {_choices(record)}",
        f"{slices}{record['topology']}, {record['devices']} devices; compiled by {versions}",
        *_memory_lines("train step", record),
        f"model FLOPs a step, of full rows: {record['model_flops']:.3g}",
    ]
    if record["fits"]:
        step, by_kind = record["compiler_estimate"], sent_by_kind(record)
        across = sum(one["bytes_sent"] for one in record["collectives"] if one["crosses_slices"])
        found += [
            "collectives a step, GiB that a device sends:",
            *(f"    {k:<26}{sent / GIB:>9.3f} in {n:,}" for k, (n, sent) in by_kind.items()),
            *([f"    {'of it between slices':<26}{across / GIB:>9.3f}"] if across else []),
            f"compiler estimate, not a measurement: {step['seconds']:.3g} s a step, MFU "
            f"{step['mfu']:.0%}, bound by {step['bound']}; products {step['compute_seconds']:.3g} "
            f"s, other work {step['memory_seconds']:.3g} s, collectives "
            f"{step['interconnect_seconds']:.3g} s",
        ]
    for name, part in record.get("generation", {}).items():
        found += _memory_lines(name, part)
    return found


def ranking(records: list[dict[str, Any]]) -> list[str]:
    """What a search found, a line each, in the order given."""
    form = "  {:<36} {:<15} {:>12} {:>12} {:>9} {:>5}  {}".format
    found = [
        f"{len(records)} fit; the step's time is the compiler's estimate, not a measurement:",
        form(
            "mesh",
            "remat",
            "gradient_accumulation_steps",
            "GiB a device",
            "s a step",
            "MFU",
            "bound by",
        ),
    ]
    for record in records:
        step = record["compiler_estimate"]
        found.append(
            form(
                describe_mesh(record["mesh"]),
                record["remat"],
                record["gradient_accumulation_steps"],
                f"{record['memory']['total'] / GIB:.2f}",
                f"{step['seconds']:.3g}",
                f"{step['mfu']:.0%}",
                step["bound"],
            )
        )
    return found


def _choices(record: dict[str, Any]) -> str:
    return (
        f"mesh {describe_mesh(record['mesh'])}, remat {record['remat']}, "
        f"{record['gradient_accumulation_steps']} microbatches"
    )


def _memory_lines(name: str, record: dict[str, Any]) -> list[str]:
    memory = dict(record["memory"])
    sizes = memory.pop("parts") | memory
    said = "fits" if record["fits"] else f"does not fit: {record['refusal']}"
    return [
        f"{name}: {said} (compiled in {record['compile_seconds']:.0f} s)",
        "  memory a device, GiB:",
        *(f"    {part:<26}{size / GIB:>9.3f}" for part, size in sizes.items()),
    ]
