"""The estimate of a step's time, against work counted by hand and against unrolled programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    LossConfig,
    MeshConfig,
    TrainConfig,
)
from ift_jax.models.model import Model
from ift_jax.planning.chips import chips
from ift_jax.planning.estimate import (
    KERNEL_BLOCK,
    KernelShares,
    estimate,
    head_trip_count,
    visited_share,
)
from ift_jax.sharding.mesh import make_mesh
from tests.planning.compiled import compile_for, layers

BF16 = jnp.bfloat16


def test_tables_are_of_devices():
    """Figures are published per chip; the two devices of a tpu7x share the chip's."""
    v5p, tpu7x = chips()["v5p"], chips()["tpu7x"]
    assert (v5p.peak_flops, v5p.hbm_bytes, v5p.ici_bandwidth) == (4.59e14, 95 * 2**30, 9e10)
    assert (tpu7x.peak_flops, tpu7x.hbm_bytes) == (1.15e15, 96 * 2**30)
    assert all(0.9e9 < chip.clock < 2.5e9 for chip in chips().values())


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1"])
def test_a_large_product_runs_near_the_peak(topology):
    args = (((4096, 4096), BF16, P()),) * 2
    module, mesh = compile_for(topology, lambda a, b: a @ b, *args, out=P(), shape=(1,))
    flops = 2.0 * 4096**3
    chip = chips()[topology.split(":")[0]]
    found = estimate(module, chip, list(mesh.devices.flat), model_flops=flops)
    assert 0.7 < found.mfu < 1 and found.bound == "compute"
    assert found.seconds == pytest.approx(flops / chip.peak_flops / found.mfu)
    assert found.interconnect_seconds == 0


def test_moving_memory_is_bound_by_it():
    size = 16384
    args = ((size, size), BF16, P())
    module, mesh = compile_for("v5e:2x2", lambda a: a * 2 + 1, args, out=P(), shape=(1,))
    found = estimate(module, chips()["v5e"], list(mesh.devices.flat), model_flops=0.0)
    assert found.seconds == pytest.approx(2 * 2 * size**2 / 8.1e11) and found.bound == "memory"


def test_a_gathered_weight_takes_its_bytes_over_the_links():
    """No axis of 4 x 4 chips is closed to a ring: one link along each of two axes."""
    args = ((4096, 4096), jnp.float32, P("x"))
    module, mesh = compile_for("v5e:4x4", lambda x: x * 2, args, out=P())
    found = estimate(module, chips()["v5e"], list(mesh.devices.flat), model_flops=0.0)
    sent = 4 * 4096**2 * 15 / 16
    assert found.interconnect_seconds == pytest.approx(sent / (2 * 4.5e10))
    assert found.bound == "interconnect"


@pytest.mark.slow
def test_a_loop_costs_what_unrolled_layers_cost():
    """The sums agree for 4 layers; unrolled, more gathers overlap with products."""

    def found(unroll):
        args = ((4, 2048, 2048), BF16, P(None, "x", None)), ((16 * 1024, 2048), BF16, P("x", None))
        program = layers(4, unroll)
        module, mesh = compile_for("v5e:4x4", program, *args, out=P(None, "x", None))
        return estimate(module, chips()["v5e"], list(mesh.devices.flat), model_flops=1.0)

    loop, unrolled = found(1), found(4)
    assert loop.compute_seconds == pytest.approx(unrolled.compute_seconds, rel=0.05)
    assert loop.interconnect_seconds == pytest.approx(unrolled.interconnect_seconds, rel=0.05)
    assert unrolled.seconds < loop.seconds < 1.35 * unrolled.seconds


@pytest.mark.slow
def test_train_step(fsdp_step):
    module, mesh, model = fsdp_step
    chip, devices = chips()["v5e"], list(mesh.devices.flat)
    flops = model.flops_per_token([512], [512]) * 32 * 512 / 16
    found = estimate(module, chip, devices, model_flops=flops, kernel_shares=KernelShares())
    assert found.seconds > flops / chip.peak_flops and 0 < found.mfu < 1
    assert found.seconds >= found.compute_seconds + found.memory_seconds
    # Attention alone: 2 rows a device, 4 layers, 4 heads of 128. There are 2 products of 512 x 512
    # pairs in the forward pass, 2 when it is recomputed, 3 for the gradient of the queries, and 4
    # for that of the keys and values.
    none = estimate(
        module, chip, devices, model_flops=flops, kernel_shares=KernelShares(attention=0.0)
    )
    kernels = (2 + 2 + 3 + 4) * 2.0 * 2 * 4 * 4 * 512 * 512 * 128
    assert found.compute_seconds - none.compute_seconds == pytest.approx(kernels / chip.peak_flops)
    # The trip count of the head's loop depends on the data: with twice as many it takes longer.
    longer = estimate(module, chip, devices, model_flops=flops, data_trip_count=2)
    assert longer.seconds > found.seconds


@pytest.mark.parametrize(("length", "window"), [(512, 0), (4096, 0), (4096, 1024)])
def test_share_of_blocks_that_attention_visits(length, window):
    sizes = {"vocab_size": 128, "n_layers": 2, "d_model": 8, "n_heads": 1, "n_kv_heads": 1}
    model = Model(DecoderConfig(sliding_window=window, head_dim=8, d_ff=8, **sizes))
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    seen = (distance >= 0) & (distance < (window or length))
    n = length // KERNEL_BLOCK
    blocks = seen.reshape(n, KERNEL_BLOCK, n, KERNEL_BLOCK).any(axis=(1, 3))
    assert visited_share(model, length) == pytest.approx(blocks.mean())


def test_trip_count_of_the_output_head():
    """As the loss documents: an eighth of a device's positions, up to 16M logits."""
    config = Config(
        data=DataConfig(max_length=4096),
        model=DecoderConfig(vocab_size=128_256),
        train=TrainConfig(batch_size=64, gradient_accumulation_steps=2),
    )
    small = dataclasses.replace(config, model=DecoderConfig(vocab_size=1024))
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=4))):
        assert head_trip_count(config) == -(-4 * 4096 // (2**24 // 128_256))
        assert head_trip_count(small) == 4 * 4096 // 1024
        assert head_trip_count(dataclasses.replace(small, loss=LossConfig(chunk=4096))) == 4
    with jax.set_mesh(make_mesh(MeshConfig(data=4, sequence=2))):
        assert head_trip_count(small) == 8
