"""The search for a run's mesh, remat policy and gradient accumulation on a topology."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ift_jax.config.model_help import REMAT_POLICIES
from ift_jax.config.schema import Config, MeshConfig
from ift_jax.planning.compile_step import CompilerFault
from ift_jax.sharding.mesh import describe_mesh

TENSOR_SIZES = (1, 2, 4, 8)
# Copies of the parameters in a slice; each is sharded over its part of the slice.
COPIES_PER_SLICE = (1, 4, 16)
ACCUMULATION_STEPS = (1, 2, 4, 8)


def candidates(config: Config, n_devices: int, slices: int) -> Iterator[Config]:
    """Yield what is tried, one mesh after the other; `sequence` and `expert` are the config's.

    The first candidate of each mesh is the one that needs least memory (except "offload"): if
    that does not fit, few others need to be compiled.
    """
    for mesh in _meshes(config, n_devices, slices):
        shards = mesh.data * mesh.fsdp * mesh.expert
        accumulations = [
            n for n in ACCUMULATION_STEPS if config.train.batch_size % (n * shards) == 0
        ]
        choices = [(remat, n) for n in accumulations for remat in REMAT_POLICIES]
        if not choices:
            continue
        lightest = ("full", accumulations[-1])
        for remat, n in sorted(choices, key=lambda choice: choice != lightest):
            yield dataclasses.replace(
                config,
                mesh=mesh,
                model=dataclasses.replace(config.model, remat=remat),
                train=dataclasses.replace(config.train, gradient_accumulation_steps=n),
            )


def _meshes(config: Config, n_devices: int, slices: int) -> Iterator[MeshConfig]:
    sequence, expert = config.mesh.sequence, config.mesh.expert
    for tensor in TENSOR_SIZES:
        if config.model.n_heads % tensor:
            continue
        for copies in COPIES_PER_SLICE:
            fsdp, rest = divmod(n_devices, slices * copies * expert * tensor * sequence)
            if fsdp and not rest:
                yield MeshConfig(slices * copies, fsdp, expert, tensor, sequence)


def covers(known: Config, other: Config) -> bool:
    """Whether `known` computes no more than `other`, in no less memory, on the same mesh."""
    if known.mesh != other.mesh:
        return False
    no_more_steps = (
        known.train.gradient_accumulation_steps <= other.train.gradient_accumulation_steps
    )
    known_remat = known.model.remat
    other_remat = other.model.remat
    recomputes_no_more = (
        known_remat == other_remat
        or known_remat == "none"
        or (other_remat == "full" and known_remat != "offload")
    )
    return no_more_steps and recomputes_no_more


def search(
    every: Iterable[Config], judge: Callable[[Config], dict[str, Any]], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return the records of the candidates that fit, by the estimated time of a step.

    A candidate is not compiled if the result follows from another one: it would fit and be slower,
    or it would need more memory than one that does not fit.

    Args:
        every: The candidates.
        judge: Compiles a candidate; returns its record.
        say: Prints a line.
    """
    known: list[tuple[Config, dict[str, Any]]] = []
    n_slower = 0
    n_larger = 0
    for config in every:
        if any(record["fits"] and covers(other, config) for other, record in known):
            n_slower += 1
            continue
        if any(not record["fits"] and covers(config, other) for other, record in known):
            n_larger += 1
            continue
        try:
            record = judge(config)
        except CompilerFault as error:
            result = f"cannot be compiled: {str(error)[:200]}"
        else:
            known.append((config, record))
            result = "fits" if record["fits"] else f"does not fit: {record['refusal']}"
        mesh = describe_mesh(dataclasses.asdict(config.mesh))
        say(
            f"mesh {mesh}, remat {config.model.remat}, "
            f"{config.train.gradient_accumulation_steps} microbatches: {result}"
        )
    say(
        f"not compiled because the result is known: {n_slower} choices that recompute more than "
        f"one that fits, {n_larger} that need more memory than one that does not fit"
    )
    fitting = [record for _, record in known if record["fits"]]
    return sorted(fitting, key=lambda record: record["compiler_estimate"]["seconds"])
