"""Programs compiled for TPUs that are not here."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ift_jax import partitioning
from ift_jax.config import (
    Config,
    DataConfig,
    DecoderConfig,
    OptimizerConfig,
    TrainConfig,
)
from ift_jax.models.definition import trained_model
from ift_jax.training import step as step_lib
from ift_jax.training.optimizer import make_optimizer, make_schedule
from plans.hlo import Module


def devices_of(topology, slices=1):
    pytest.importorskip("libtpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")
        from jax.experimental import topologies

        options = {"num_slices": slices} if slices > 1 else {}
        return topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        ).devices


def compile_for(topology, function, *args, out, shape=None, slices=1):
    """`args`: (shape, dtype, partition); the mesh has an axis "x", or of `shape` "slice", "x"."""
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
    """Loss of n layers with a weight each of size D x D, which "x" cuts."""

    def loss(w_NxDxD, x_TxD):
        def body(x, w):
            return jax.lax.with_sharding_constraint(jax.nn.relu(x @ w), P("x", None)), None

        body = jax.checkpoint(body, prevent_cse=unroll > 1)
        x_TxD, _ = jax.lax.scan(body, x_TxD, w_NxDxD, unroll=unroll)
        return (x_TxD.astype(jnp.float32) ** 2).sum()

    return jax.grad(loss)


def train_step(topology, mesh, n_layers=4, d_model=512, rows=32):
    """The compiled train step of a small decoder, its mesh, model and config."""
    config = Config(
        data=DataConfig(row_length=512),
        model=DecoderConfig(
            vocab_size=1024, n_layers=n_layers, d_model=d_model, n_heads=4, n_kv_heads=2,
            head_dim=128, d_ff=1024, dtype="bfloat16", remat="full",
        ),
        optimizer=OptimizerConfig(), mesh=mesh, train=TrainConfig(batch_rows=rows, steps=10),
    )  # fmt: skip
    mesh = partitioning.make_mesh(config.mesh, devices_of(topology))
    model = trained_model(config)
    tx = make_optimizer(config.optimizer, model.logical_axes)
    shapes = jax.eval_shape(lambda: step_lib.init_state(model, tx, 0, 1))
    shardings = step_lib.state_shardings(model, mesh, shapes)
    cut = lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s)  # noqa: E731
    ints = ("tokens", "targets", "segment_ids", "positions", "task_ids")
    whole = dict.fromkeys(ints, jnp.int32) | {"loss_weights": jnp.float32}
    like = dict(shape=(rows, 512), sharding=partitioning.batch_sharding(mesh, (rows, 512)))
    batch = {name: jax.ShapeDtypeStruct(dtype=t, **like) for name, t in whole.items()}
    step = step_lib.make_train_step(model, tx, make_schedule(config.optimizer, 10), config, 1)
    with jax.set_mesh(mesh):
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
        compiled = jitted.lower(jax.tree.map(cut, shapes, shardings), batch).compile()
    return Module(compiled.as_text()), mesh, model
