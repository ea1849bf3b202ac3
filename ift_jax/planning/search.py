"""Meshes x remat policies x microbatches of a run on a topology: which fit, best first."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ift_jax.config.model import REMAT_POLICIES
from ift_jax.config.schema import Config, MeshConfig
from ift_jax.sharding.mesh import describe_mesh


def candidates(config: Config, n_devices: int, slices: int) -> Iterator[Config]:
    """What is tried, a mesh after the other; the `sequence` axis is the config's.

    Of each mesh first what needs least memory, but for "offload".
    """
    heads, rows = config.model.n_heads, config.train.batch_size
    for tensor in (n for n in (1, 2, 4, 8) if heads % n == 0):
        for copies in (1, 4, 16):  # Of the parameters in a slice, each cut over its part of it.
            fsdp, rest = divmod(n_devices, slices * copies * tensor * config.mesh.sequence)
            shards = slices * copies * fsdp
            cuts = [] if rest or not fsdp else [n for n in (1, 2, 4, 8) if rows % (n * shards) == 0]
            choices = [(remat, n) for n in cuts for remat in REMAT_POLICIES]
            for remat, n in sorted(choices, key=lambda choice: choice != ("full", cuts[-1])):
                yield dataclasses.replace(
                    config,
                    mesh=MeshConfig(slices * copies, fsdp, tensor, config.mesh.sequence),
                    model=dataclasses.replace(config.model, remat=remat),
                    train=dataclasses.replace(config.train, gradient_accumulation_steps=n),
                )


def covers(known: Config, other: Config) -> bool:
    """Whether on the same mesh `known` computes no more than `other`, in no less memory."""
    a, b = known.model.remat, other.model.remat
    no_more = known.train.gradient_accumulation_steps <= other.train.gradient_accumulation_steps
    lighter = a == b or a == "none" or (b == "full" and a != "offload")
    return known.mesh == other.mesh and no_more and lighter


def search(
    every: Iterator[Config], judge: Callable[[Config], dict[str, Any]], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """`judge` compiles a config; the records of those that fit, by the estimated time.

    What follows from another is not compiled: it would fit and be slower, or need more memory
    than one that does not fit.
    """
    known: list[tuple[Config, dict[str, Any]]] = []
    slower = larger = 0
    for config in every:
        if any(record["fits"] and covers(other, config) for other, record in known):
            slower += 1
            continue
        if any(covers(config, other) for other, record in known if not record["fits"]):
            larger += 1
            continue
        try:
            known.append((config, record := judge(config)))
            said = "fits" if record["fits"] else f"does not fit: {record['refusal']}"
        except jax.errors.JaxRuntimeError as error:  # The compiler's own failure.
            said = f"cannot be compiled: {' '.join(str(error).split())[:200]}"
        mesh = describe_mesh(dataclasses.asdict(config.mesh))
        say(
            f"mesh {mesh}, remat {config.model.remat}, "
            f"{config.train.gradient_accumulation_steps} microbatches: {said}"
        )
    say(
        f"not compiled, as it follows: {slower} choices that recompute more than one that fits, "
        f"{larger} that need more memory than one that does not fit"
    )
    fitting = [record for _, record in known if record["fits"]]
    return sorted(fitting, key=lambda record: record["compiler_estimate"]["seconds"])
