"""LongRoPE in packed rows: each example has the frequencies that it has alone."""

import dataclasses

import jax
import numpy as np
import pytest

from ift_jax.config.schema import MeshConfig
from ift_jax.models import build_model
from ift_jax.models.attention import reference, tiled
from ift_jax.models.rope import text_lengths
from ift_jax.sharding import rules
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh
from tests.small_models import ARCHITECTURES, random_params
from tests.training.examples import decoder_batch, make_examples
from tests.training.test_invariance import assert_same, compute

FIRST_LENGTH = 5
CONFIG = dataclasses.replace(
    ARCHITECTURES["decoder"],
    rope_scaling="longrope",
    rope_original_length=FIRST_LENGTH,
    rope_attention_factor=1.2,
    rope_short_factors=(1.0, 1.5, 2.0, 2.5),
    rope_long_factors=(1.0, 4.0, 6.0, 8.0),
)
# Below, at, and above the first length, in every order within a row of 16.
ROWS = [[4, 7, 5], [6, 5, 4], [9, 4, 2], [5, 1, 10]]


def rows_of_examples():
    lengths = [n for row in ROWS for n in row]
    examples = iter(make_examples(lengths, [0] * len(lengths)))
    return [[next(examples) for _ in row] for row in ROWS]


@pytest.fixture(scope="module")
def params():
    return random_params(build_model(CONFIG), std=0.3)


@pytest.fixture(scope="module")
def alone(params):
    """The sum of the examples' own losses and gradients, with factors that need no comparison."""
    total = []
    for example in [example for row in rows_of_examples() for example in row]:
        is_long = len(example.tokens) > FIRST_LENGTH
        factors = CONFIG.rope_long_factors if is_long else CONFIG.rope_short_factors
        both = dict.fromkeys(("rope_short_factors", "rope_long_factors"), factors)
        model = build_model(dataclasses.replace(CONFIG, **both))
        batch = decoder_batch([[example]], 10)
        loss, grads, _ = compute(model, params, batch, "sum")
        total.append((np.float64(loss), jax.tree.map(lambda g: np.asarray(g, np.float64), grads)))
    return jax.tree.map(lambda *parts: sum(parts), *total)


def test_packed_equals_alone(params, alone):
    batch = decoder_batch(rows_of_examples(), 16)
    assert_same(compute(build_model(CONFIG), params, batch, "sum"), alone)
    # The comparison can fail: it does with the same factors for all.
    short = dataclasses.replace(CONFIG, rope_long_factors=CONFIG.rope_short_factors)
    with pytest.raises(AssertionError):
        assert_same(compute(build_model(short), params, batch, "sum"), alone)


@pytest.mark.parametrize("implementation", ("plain", "blockwise", "tiled", "splash", "triton"))
def test_implementations_of_attention_with_the_length_cut(
    params, alone, implementation, monkeypatch
):
    monkeypatch.setattr(reference, "BLOCK_PAIRS", 1)  # Blocks of the smallest size.
    monkeypatch.setattr(tiled, "BLOCK", 16)
    model = build_model(dataclasses.replace(CONFIG, attention=implementation, remat="full"))
    host = decoder_batch(rows_of_examples(), 16)
    mesh = make_mesh(MeshConfig(data=2, sequence=4))
    with jax.set_mesh(mesh):
        shardings = rules.tree_shardings(mesh, model.logical_axes, params)
        cut = {k: jax.device_put(v, batch_sharding(mesh, v.shape)) for k, v in host.items()}
        got = compute(model, jax.device_put(params, shardings), cut, "sum", microbatches=2)
    assert_same(got, alone)


def test_lengths_of_texts_are_counted_by_example():
    segment_ids = np.array([[1, 1, 1, 2, 3, 3, 0, 0], [1] * 8, [4] * 3 + [7] * 5])
    positions = np.array([[0, 1, 2, 0, 0, 1, 0, 0], range(8), [0, 1, 2, 0, 1, 2, 3, 4]])
    want = [[3, 3, 3, 1, 2, 2, 1, 1], [8] * 8, [3] * 3 + [5] * 5]
    np.testing.assert_array_equal(text_lengths(segment_ids, positions), want)
