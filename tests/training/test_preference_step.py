"""Loss and gradient of pairs: closed forms, and the same however a batch is split.

`test_preference_trl.py` compares them with TRL's.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.config.schema import LossConfig, MeshConfig, PreferenceConfig
from ift_jax.models.model import build_model
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training.preference_loss import Sides, pair_losses, spread, sum_by_side
from ift_jax.training.preference_step import pair_loss_and_grads
from tests.small_models import ARCHITECTURES, random_params
from tests.training.pairs import make_pairs, pair_batch
from tests.training.test_invariance import assert_same

LENGTH = 32
# Among them a pair that fills a row, and the shortest sides that there can be.
PAIRS = make_pairs([(8, 8, 8), (1, 1, 1), (3, 4, 2), (2, 1, 6), (5, 3, 3), (1, 1, 2)])
ROWS = [PAIRS[:1], [PAIRS[1], PAIRS[2], PAIRS[5]], PAIRS[3:5], []]
APO = PreferenceConfig("apo_zero", beta=0.3)


@pytest.fixture(scope="module")
def model():
    return build_model(ARCHITECTURES["decoder"])


@pytest.fixture(scope="module")
def params(model):
    return random_params(model, std=0.2)


@functools.cache
def program(model, microbatches):
    return jax.jit(
        functools.partial(
            pair_loss_and_grads,
            model,
            loss=LossConfig(),
            preference=APO,
            n_tasks=3,
            gradient_accumulation_steps=microbatches,
        )
    )


@pytest.fixture(scope="module")
def packed(model, params):
    return program(model, 1)(params, pair_batch(ROWS, LENGTH))


def test_one_pair_a_row_in_microbatches_equals_packed_rows(model, params, packed):
    rows = [[pair] for pair in PAIRS] + [[], []]
    got = program(model, 4)(params, pair_batch(rows, LENGTH))
    assert_same(got, packed)
    for name, total in packed[2].items():
        np.testing.assert_allclose(got[2][name], total, rtol=2e-5, atol=1e-6, err_msg=name)


def test_eight_devices_equal_one(model, params, packed):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=1, sequence=2))
    host = pair_batch(ROWS, LENGTH)
    with jax.set_mesh(mesh):
        placed = jax.device_put(params, rules.tree_shardings(mesh, model.logical_axes, params))
        batch = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in host.items()}
        assert_same(program(model, 1)(placed, batch), packed)


def test_sums_are_those_of_the_pairs(packed):
    loss, _, sums = packed
    assert float(sums["pairs"]) == len(PAIRS) and sums["task_pairs"].tolist() == [2.0, 2.0, 2.0]
    np.testing.assert_allclose(loss, sums["pair_loss"] / len(PAIRS), rtol=1e-6)
    np.testing.assert_allclose(sums["task_pair_loss"].sum(), sums["pair_loss"], rtol=1e-6)
    # The plain loss is of the chosen sides alone.
    assert float(sums["weight"]) == sum(p.chosen.weights.sum() for p in PAIRS)
    assert float(sums["trained"]) == sum(s.weights.sum() for p in PAIRS for s in p[:2])
    np.testing.assert_allclose(sums["nll"], -sums["chosen_log_prob"], rtol=1e-6)


def test_it_matters_which_sides_are_a_pair(model, params, packed):
    """The comparisons can fail: they do where two pairs of a row exchange their chosen sides."""
    batch = pair_batch(ROWS, LENGTH)
    ids = batch["segment_ids"]
    batch["segment_ids"] = np.select([ids == 1, ids == 3], [3, 1], ids)
    with pytest.raises(AssertionError):
        assert_same(program(model, 1)(params, batch), packed)


def sides(chosen, rejected):
    return Sides(jnp.array(chosen, jnp.float32), jnp.array(rejected, jnp.float32))


LOG_PROBS = sides([-10.0, -3.0, -7.0], [-12.0, -2.0, -7.0])
REFERENCE = sides([-11.0, -2.0, -7.0], [-11.5, -4.0, -7.0])
WEIGHTS = sides([4.0, 2.0, 3.0], [5.0, 1.0, 3.0])
RATIOS = np.array([[1.0, -1.0, 0.0], [-0.5, 2.0, 0.0]])
MEANS = RATIOS / np.array([[4.0, 2.0, 3.0], [5.0, 1.0, 3.0]])


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        (PreferenceConfig("sigmoid", 0.5), -log_sigmoid(0.5 * (RATIOS[0] - RATIOS[1]))),
        (
            PreferenceConfig("sigmoid", 0.5, 0.2),
            -0.8 * log_sigmoid(0.5 * (RATIOS[0] - RATIOS[1]))
            - 0.2 * log_sigmoid(-0.5 * (RATIOS[0] - RATIOS[1])),
        ),
        (PreferenceConfig("sigmoid_norm", 5.0), -log_sigmoid(5 * (MEANS[0] - MEANS[1]))),
        (PreferenceConfig("ipo", 0.5), (MEANS[0] - MEANS[1] - 1) ** 2),
        (
            PreferenceConfig("apo_zero", 0.5),
            1 - np.exp(log_sigmoid(0.5 * RATIOS[0])) + np.exp(log_sigmoid(0.5 * RATIOS[1])),
        ),
    ],
    ids=str,
)
def test_losses_have_their_closed_forms(preference, expected):
    found = pair_losses(LOG_PROBS, REFERENCE, WEIGHTS, preference)
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    ratios = MEANS if preference.takes_means else RATIOS
    np.testing.assert_allclose(found.rewards, preference.beta * ratios, rtol=1e-5)


def test_without_a_difference_a_loss_is_what_a_coin_gives():
    for loss, expected in (("sigmoid", np.log(2)), ("sigmoid_norm", np.log(2)), ("apo_zero", 1.0)):
        found = pair_losses(REFERENCE, REFERENCE, WEIGHTS, PreferenceConfig(loss, 0.1))
        np.testing.assert_allclose(found.loss, expected, rtol=1e-6)


def test_sums_go_to_the_sides_of_a_row_and_back():
    segment_ids = jnp.array([[1, 1, 2, 3, 4, 4, 0, 0], [0] * 8, [1, 2, 2, 2, 2, 2, 2, 2]])
    values = jnp.arange(24, dtype=jnp.float32).reshape(3, 8)
    found = sum_by_side(values, segment_ids, n_pairs=2)
    np.testing.assert_array_equal(found.chosen, [[1, 3], [0, 0], [16, 0]])
    np.testing.assert_array_equal(found.rejected, [[2, 9], [0, 0], [140, 0]])
    back = spread(found, segment_ids)
    np.testing.assert_array_equal(back[0], [1, 1, 2, 3, 9, 9, 0, 0])
    np.testing.assert_array_equal(back[2], [16, *[140] * 7])
