"""Programs that are compiled for TPUs without having one."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ift_jax.config.schema import Config, DataConfig, DecoderConfig, OptimizerConfig, TrainConfig
from ift_jax.planning import topology as topologies
from ift_jax.planning.environment import set_environment
from ift_jax.planning.hlo import Module
from ift_jax.training.train_program import TrainProgram


def devices_of(topology, slices=1):
    pytest.importorskip("libtpu")
    set_environment()
    return topologies.devices_of(topology, slices)


def compile_for(topology, function, *args, out, shape=None, slices=1):
    """Compile a function for a topology.

    Args:
        topology: As `ift plan` takes it.
        function: The function.
        args: The shape, dtype and partition of each argument.
        out: The partition of the result.
        shape: The number of devices along the axis "x" of the mesh; None: all.
        slices: If there are several, the mesh has the axes "slice" and "x".

    Returns:
        The parsed program and the mesh.
    """
    devices = devices_of(topology, slices)
    if slices > 1:
        from jax.experimental import mesh_utils

        grid = mesh_utils.create_hybrid_device_mesh(
            (1, len(devices) // slices), (slices, 1), devices
        )
        mesh = jax.sharding.Mesh(grid, ("slice", "x"))
    else:
        n = math.prod(shape) if shape else len(devices)
        mesh = jax.make_mesh((n,), ("x",), devices=devices[:n], axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        like = [jax.ShapeDtypeStruct(s, d, sharding=NamedSharding(mesh, p)) for s, d, p in args]
        compiled = jax.jit(function, out_shardings=NamedSharding(mesh, out)).lower(*like).compile()
    return Module(compiled.as_text()), mesh


def layers(n, unroll=1):
    """The gradient of a loss of n layers; each has a weight of D x D, cut along "x"."""

    def loss(w_NxDxD, x_TxD):
        def body(x, w):
            return jax.lax.with_sharding_constraint(jax.nn.relu(x @ w), P("x", None)), None

        body = jax.checkpoint(body, prevent_cse=unroll > 1)
        x_TxD, _ = jax.lax.scan(body, x_TxD, w_NxDxD, unroll=unroll)
        return (x_TxD.astype(jnp.float32) ** 2).sum()

    return jax.grad(loss)


def step_program(topology, mesh, n_layers=4, d_model=512, rows=32, vocab_size=1024):
    """The program of a small decoder's train step."""
    config = Config(
        data=DataConfig(max_length=512),
        model=DecoderConfig(
            vocab_size=vocab_size,
            n_layers=n_layers,
            d_model=d_model,
            n_heads=4,
            n_kv_heads=2,
            head_dim=128,
            d_ff=1024,
            dtype="bfloat16",
            remat="full",
        ),
        optimizer=OptimizerConfig(),
        mesh=mesh,
        train=TrainConfig(batch_size=rows, steps=10),
    )
    return TrainProgram.from_config(config, 1, config.train.steps, devices_of(topology))


def train_step(topology, mesh, **sizes):
    """The compiled train step of a small decoder, its mesh and model."""
    program = step_program(topology, mesh, **sizes)
    return Module(program.lower().compile().as_text()), program.mesh, program.model
