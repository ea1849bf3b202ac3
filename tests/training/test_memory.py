"""ZeRO-1 shards optimizer state along `data`: the same updates and checkpoints in less memory.

Also where a run with `offload` is refused.
"""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.config.schema import Config, DecoderConfig, MeshConfig, OptimizerConfig, TrainConfig
from ift_jax.errors import UserError
from ift_jax.models.model import build_model
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh
from ift_jax.sharding.trees import abstract
from ift_jax.training.optimizer import make_learning_rate, make_optimizer
from ift_jax.training.setup import prepare_run
from ift_jax.training.state import state_of, state_shardings
from ift_jax.training.step import make_train_step
from tests.small_models import ARCHITECTURES, random_params
from tests.training.examples import BATCHES, make_examples

N_STEPS = 3


class Trained(NamedTuple):
    """A run of three steps on eight devices."""

    first: dict  # The state at step 0.
    last: dict
    shardings: dict  # The state's shardings.
    bytes_per_device: int  # The train step's arguments: the state and the batch.


@pytest.fixture(scope="module")
def runs():
    """The run without and with optimizer state sharded along `data`."""
    return {over_data: train(over_data) for over_data in (False, True)}


def train(over_data):
    rows = [[example] for example in make_examples([9, 7, 5, 8, 3, 9, 6, 4], [1] * 8)]
    host_batch = BATCHES["decoder"](rows, 10)
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    model = build_model(dataclasses.replace(ARCHITECTURES["decoder"], tied_embedding=False))
    config = OptimizerConfig(
        learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5, shard_over_data=over_data
    )
    optimizer = make_optimizer(config, model.logical_axes)
    step = make_train_step(
        model,
        optimizer,
        make_learning_rate(config, 10),
        Config(model=model.config, optimizer=config, train=TrainConfig(steps=10)),
        n_tasks=3,
    )
    params = random_params(model, std=0.2)
    fresh = jax.jit(lambda params: state_of(model, params, optimizer, 3))(params)
    shardings = state_shardings(model, mesh, fresh, over_data)
    with jax.set_mesh(mesh):
        first = state = jax.device_put(fresh, shardings)
        batch = {
            name: jax.device_put(array, batch_sharding(mesh, array.shape))
            for name, array in host_batch.items()
        }
        compiled = jax.jit(step, out_shardings=(shardings, None)).lower(state, batch).compile()
        for _ in range(N_STEPS):
            state, _ = compiled(state, batch)
    n_bytes = compiled.memory_analysis().argument_size_in_bytes
    return Trained(jax.device_get(first), state, shardings, n_bytes)


def test_it_changes_nothing_but_the_memory(runs):
    plain, sharded = runs[False], runs[True]
    # There are two float32 moments of each matrix. Each of the eight devices holds an eighth of
    # them instead of a half.
    leaves = jax.tree.leaves(plain.first["params"])
    n_matrices = sum(p.size for p in leaves if p.ndim > 1 and min(p.shape[-2:]) > 2)
    saved = plain.bytes_per_device - sharded.bytes_per_device
    assert saved == 2 * 4 * n_matrices * (1 / 2 - 1 / 8)
    # A step moves a parameter by 1e-2 at most, and Adam's division magnifies a rounding error
    # where a gradient is nearly zero, so parameters are held to a thousandth of a step.
    for part, tolerance in (("params", 1e-5), ("opt_state", 1e-6)):
        for a, b, start in zip(
            jax.tree.leaves(jax.device_get(plain.last[part])),
            jax.tree.leaves(jax.device_get(sharded.last[part])),
            jax.tree.leaves(plain.first[part]),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=tolerance)
            assert np.abs(a - start).max() > 1e-7
    for a, b in zip(
        jax.tree.leaves(plain.last["params"]), jax.tree.leaves(sharded.last["params"]), strict=True
    ):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


@pytest.mark.parametrize("saved", [False, True])
def test_a_checkpoint_of_one_is_restored_as_the_other(runs, saved, tmp_path):
    state, shardings = runs[saved].last, runs[not saved].shardings
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(N_STEPS, state)
    checkpoints.wait()
    restored = checkpoints.restore(N_STEPS, abstract(state, shardings))
    checkpoints.close()

    def check(expected, got, sharding):
        np.testing.assert_array_equal(np.asarray(expected), np.asarray(got))
        assert got.sharding == sharding

    jax.tree.map(check, state, restored, shardings)


def test_offload_is_refused_where_the_device_is_the_host():
    with pytest.raises(
        UserError, match=r"^config.model.remat: 'offload' .*\(cpu\); expected 'full'"
    ):
        prepare_run(Config(model=DecoderConfig(remat="offload")), print)
