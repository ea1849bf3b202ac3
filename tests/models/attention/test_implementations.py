"""Every implementation of attention: outputs against NumPy, gradients against dense attention.

Float32; rows of many blocks of an odd length, packed, with padding.
"""

import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import MeshConfig
from ift_jax.models.attention import reference, tiled
from ift_jax.models.attention.mask import Tokens
from ift_jax.models.attention.relative_bias import bias_of_pairs
from ift_jax.sharding.batch_placement import batch_sharding
from ift_jax.sharding.mesh import make_mesh
from tests.models.attention.run_attention import (
    HEADS,
    LENGTH,
    numpy_output,
    output_and_gradients,
    packed_rows,
    random_inputs,
)

NOT_DENSE = ("splash", "triton", "blockwise", "tiled")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 32, so that a row has ten of them, the last one not full."""
    monkeypatch.setattr(reference, "BLOCK_PAIRS", 40 * LENGTH)
    monkeypatch.setattr(tiled, "BLOCK", 32)


CASES = {
    "causal": dict(kv_heads=2),
    "one key-value head, soft cap": dict(kv_heads=1, softcap=1.5),
    "prefix": dict(kv_heads=4, prefix=True),
    "window": dict(kv_heads=2, window=20),
    "prefix, window, soft cap": dict(kv_heads=2, prefix=True, window=70, softcap=2.0),
    "both ways": dict(kv_heads=4, causal=False),
}


@functools.cache
def formula(case):
    """The inputs of a case, the output in NumPy, and the gradients of dense attention."""
    options = dict(CASES[case])
    tokens = packed_rows(1, with_prefix=options.pop("prefix", False))
    inputs = random_inputs(2, options.pop("kv_heads"))
    y = numpy_output(inputs, tokens, tokens, **options)
    _, gradients = output_and_gradients("xla", inputs, tokens, tokens, **options)
    return tokens, inputs, options, y, gradients


def assert_gradients_are(got, want, atol=1e-5):
    for ours, dense in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, dense, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(
    ("implementation", "case"),
    [(name, case) for name in ("splash", "blockwise", "tiled") for case in CASES]
    # To triton every mask is an interval, so it needs fewer cases.
    + [("triton", case) for case in ("causal", "prefix, window, soft cap", "both ways")],
)
def test_each_is_the_formula_and_its_gradient(implementation, case):
    tokens, inputs, options, wanted_y, wanted_gradients = formula(case)
    y, gradients = output_and_gradients(implementation, inputs, tokens, tokens, **options)
    np.testing.assert_allclose(y, wanted_y, rtol=1e-5, atol=2e-6)
    assert_gradients_are(gradients, wanted_gradients)
    padding = tokens.segment_ids_BxL == 0
    dq, *dkv = gradients
    assert (y[padding] == 0).all() and (dq[padding] == 0).all()
    assert all((leaf.swapaxes(1, 2)[padding] == 0).all() for leaf in dkv)


@pytest.mark.parametrize("implementation", NOT_DENSE)
def test_queries_of_another_length_and_segments_without_keys(implementation):
    """Cross-attention: a decoder's segment whose encoder part is empty gets zero, not NaN."""
    queries = packed_rows(3, length=150)
    keys = packed_rows(4)
    without_segment_2 = np.where(keys.segment_ids_BxL == 2, 0, keys.segment_ids_BxL)
    keys = keys._replace(segment_ids_BxL=without_segment_2)
    inputs = random_inputs(5, HEADS, n_queries=150)
    y, gradients = output_and_gradients(implementation, inputs, queries, keys, causal=False)
    wanted_y = numpy_output(inputs, queries, keys, causal=False)
    np.testing.assert_allclose(y, wanted_y, rtol=1e-5, atol=2e-6)
    _, wanted = output_and_gradients("xla", inputs, queries, keys, causal=False)
    assert_gradients_are(gradients, wanted)
    without_keys = queries.segment_ids_BxL == 2
    assert without_keys.any()
    assert (y[without_keys] == 0).all() and (gradients[0][without_keys] == 0).all()


@pytest.mark.parametrize("implementation", NOT_DENSE)
def test_segments_are_independent_of_each_other(implementation):
    """Changing one segment changes no bit of another, in the output or the gradient."""
    tokens = packed_rows(6)
    q, k, v, dy = random_inputs(7, 2)
    y, (dq, _, _) = output_and_gradients(implementation, (q, k, v, dy), tokens, tokens)
    first = tokens.segment_ids_BxL == 1
    changed_k, changed_v = (
        np.where(first[:, None, :, None], 1e3, part).astype(np.float32) for part in (k, v)
    )
    changed_inputs = (q, changed_k, changed_v, dy)
    changed_y, (changed_dq, _, _) = output_and_gradients(
        implementation, changed_inputs, tokens, tokens
    )
    assert (y[first] != changed_y[first]).any()
    np.testing.assert_array_equal(y[~first], changed_y[~first])
    np.testing.assert_array_equal(dq[~first], changed_dq[~first])


@pytest.mark.parametrize("implementation", ("xla", *NOT_DENSE))
def test_a_length_cut_over_devices(implementation):
    """Data 2 x sequence 4, and tensor 4 x sequence 2: output and gradients of one device."""
    tokens = packed_rows(8, with_prefix=True, length=256)
    inputs = random_inputs(9, 2, 256, 256)
    wanted_y, wanted = output_and_gradients("xla", inputs, tokens, tokens, window=50)
    for config in (MeshConfig(data=2, sequence=4), MeshConfig(data=1, tensor=4, sequence=2)):
        mesh = make_mesh(config)
        with jax.set_mesh(mesh):
            placed = Tokens(
                *(
                    None if part is None else jax.device_put(part, batch_sharding(mesh, part.shape))
                    for part in tokens
                )
            )
            y, gradients = output_and_gradients(implementation, inputs, placed, placed, window=50)
        np.testing.assert_allclose(y, wanted_y, rtol=1e-4, atol=1e-5)
        assert_gradients_are(gradients, wanted)


def test_a_bias_by_distance():
    """T5's bias, in blocks, on one device and with the length sharded; its gradient too."""
    length = 292  # Four devices divide it.
    rows = packed_rows(10)
    tokens = Tokens(rows.segment_ids_BxL[:, :length], rows.positions_BxL[:, :length])
    inputs = random_inputs(11, HEADS, length, length)
    rng = np.random.default_rng(12)
    bias_HxW = rng.normal(size=(HEADS, 2 * length - 1)).astype(np.float32)
    options = dict(causal=False, bias_HxW=bias_HxW)
    wanted_y, wanted = output_and_gradients("xla", inputs, tokens, tokens, **options)
    results = [output_and_gradients("blockwise", inputs, tokens, tokens, **options)]
    with jax.set_mesh(make_mesh(MeshConfig(data=1, tensor=2, sequence=4))):
        results.append(output_and_gradients("blockwise", inputs, tokens, tokens, **options))
    for y, gradients in results:
        np.testing.assert_allclose(y, wanted_y, rtol=1e-4, atol=2e-5)
        assert len(gradients) == 4
        assert_gradients_are(gradients, wanted, atol=2e-5)


def test_the_bias_of_each_pair_is_that_of_its_distance():
    length = 292
    bias_HxW = np.random.default_rng(12).normal(size=(HEADS, 2 * length - 1)).astype(np.float32)
    place = np.arange(length)
    column = place[None, :] - place[:, None] + length - 1
    np.testing.assert_array_equal(bias_of_pairs(bias_HxW, length), bias_HxW[:, column])
