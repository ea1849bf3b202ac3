"""ZeRO-1 (optimizer state cut along `data`): the same updates and checkpoints, less memory; and
where a run with `offload` is refused."""

import dataclasses

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
from tests.training.examples import BATCHES, CONFIGS, make_examples, random_params

N_STEPS = 3


@pytest.fixture(scope="module")
def runs():
    """The state at first and after three steps, its shardings, and bytes of state a device."""
    rows = [[example] for example in make_examples([9, 7, 5, 8, 3, 9, 6, 4], [1] * 8)]
    host, mesh = BATCHES["decoder"](rows, 10), make_mesh(MeshConfig(data=4, fsdp=2))
    model = build_model(dataclasses.replace(CONFIGS["decoder"], tied_embedding=False))
    results = {}
    for over_data in (False, True):
        optimizer = OptimizerConfig(
            learning_rate=1e-2, weight_decay=0.1, clip_norm=0.5, shard_over_data=over_data
        )
        config = Config(model=model.config, optimizer=optimizer, train=TrainConfig(steps=10))
        tx = make_optimizer(optimizer, model.logical_axes)
        step = make_train_step(model, tx, make_learning_rate(optimizer, 10), config, n_tasks=3)
        state = state_of(model, random_params(model), tx, 3)
        shardings = state_shardings(model, mesh, state, over_data)
        with jax.set_mesh(mesh):
            first = state = jax.device_put(state, shardings)
            batch = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in host.items()}
            lowered = jax.jit(step, out_shardings=(shardings, None)).lower(state, batch)
            compiled = lowered.compile({"xla_backend_optimization_level": 0})
            for _ in range(N_STEPS):
                state, _ = compiled(state, batch)
        held = compiled.memory_analysis().argument_size_in_bytes
        results[over_data] = first, state, shardings, held
    return results


def test_it_changes_nothing_but_the_memory(runs):
    (first, plain, _, held), (_, cut, _, held_cut) = runs[False], runs[True]
    # Two float32 moments of each matrix: on each device of the 8 an eighth instead of a half.
    leaves = jax.tree.leaves(first["params"])
    n_matrices = sum(p.size for p in leaves if p.ndim > 1 and min(p.shape[-2:]) > 2)
    assert held - held_cut == 2 * 4 * n_matrices * (1 / 2 - 1 / 8)
    # A step is 1e-2 at the most, and Adam's division makes much of a rounding where a gradient is
    # nearly zero: parameters are held to a thousandth of a step.
    for part, tolerance in (("params", 1e-5), ("opt_state", 1e-6)):
        for a, b, start in zip(
            *map(jax.tree.leaves, (plain[part], cut[part], first[part])), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=tolerance)
            assert np.abs(np.asarray(a) - np.asarray(start)).max() > 1e-7
    for a, b in zip(*map(jax.tree.leaves, (plain["params"], cut["params"])), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


@pytest.mark.parametrize("saved", [False, True])
def test_a_checkpoint_of_one_is_restored_as_the_other(runs, saved, tmp_path):
    state, shardings = runs[saved][1], runs[not saved][2]
    checkpoints = Checkpoints(str(tmp_path))
    checkpoints.save(N_STEPS, state)
    checkpoints.wait()
    restored = checkpoints.restore(N_STEPS, abstract(state, shardings))
    checkpoints.close()
    for a, b, sharding in zip(*map(jax.tree.leaves, (state, restored, shardings)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        assert b.sharding == sharding


def test_offload_is_refused_where_the_device_is_the_host():
    with pytest.raises(
        UserError, match=r"^config.model.remat: 'offload' .*\(cpu\); expected 'full'"
    ):
        prepare_run(Config(model=DecoderConfig(remat="offload")), print)
