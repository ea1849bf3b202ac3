"""Quantized weights: their levels, their rounding, and products with them."""

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.config.schema import Config, DecoderConfig, LoraConfig
from ift_jax.errors import UserError
from ift_jax.models.model import build_model, trained_model
from ift_jax.models.quantization import NF4_LEVELS, QuantizedWeight, dequantize, quantize
from ift_jax.models.quantized_matmul import quantized_matmul
from tests.small_models import ARCHITECTURES

LEVELS = {"nf4": np.array(NF4_LEVELS, np.float32), "int8": np.arange(-127, 128) / np.float32(127)}


def test_the_levels_are_quantiles_of_a_normal_distribution():
    """As the paper makes them: 8 negative ones and 9 positive ones, which share zero."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    quantile = NormalDist().inv_cdf
    positive = [quantile(p) for p in np.linspace(outermost, 0.5, 9)]
    negative = [-quantile(p) for p in np.linspace(outermost, 0.5, 8)]
    levels = np.array(sorted({*positive, *negative})) / quantile(outermost)
    np.testing.assert_allclose(NF4_LEVELS, levels, atol=1e-6)


@pytest.mark.parametrize("kind", LEVELS)
@pytest.mark.parametrize(("shape", "block"), [((3, 192, 5), 64), ((2, 48, 7), 16)])
def test_each_weight_becomes_the_nearest_level_of_its_block(kind, shape, block):
    w = np.random.default_rng(0).standard_t(3, shape).astype(np.float32)
    w[0, :block, 1] = 0  # A block without a scale.
    quantized = jax.jit(quantize, static_argnums=1)(w, kind)
    got = np.asarray(dequantize(quantized, jnp.float32))
    of_blocks = w.reshape(shape[0], -1, block, shape[2])
    largest = np.abs(of_blocks).max(axis=2, keepdims=True)
    distance = np.abs(of_blocks[..., None] - LEVELS[kind] * largest[..., None])
    error = np.abs(got.reshape(of_blocks.shape) - of_blocks)
    np.testing.assert_allclose(error, distance.min(axis=-1), atol=1e-6)
    n_bytes = sum(array.size * array.dtype.itemsize for array in quantized)
    assert n_bytes == w.size * ({"nf4": 4, "int8": 8}[kind] + 32 / block) / 8
    # The rounded numbers are levels, so nothing changes any more.
    again = quantize(jnp.asarray(got), kind)
    np.testing.assert_array_equal(again.values, quantized.values)


def test_a_product_keeps_only_the_quantized_weight_for_the_backward_pass():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 128)), jnp.float32)
    weight = quantize(jnp.asarray(rng.normal(size=(128, 24)), jnp.float32), "nf4")
    w = dequantize(weight, jnp.float32)
    y, backward = jax.vjp(lambda x: quantized_matmul(x, weight, ("embed", "mlp")), x)
    np.testing.assert_allclose(y, x @ w, rtol=1e-5, atol=1e-5)
    dy = jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    np.testing.assert_allclose(backward(dy)[0], dy @ w.T, rtol=1e-5, atol=1e-5)
    kept = {(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(backward)}
    assert kept == {((2, 32, 24), "uint8"), ((2, 1, 24), "float32")}
    in_bf16 = quantized_matmul(x.astype(jnp.bfloat16), weight, ("embed", "mlp"))
    assert in_bf16.dtype == jnp.bfloat16


def test_the_cost_of_a_model_does_not_depend_on_how_its_weights_are_held():
    config = ARCHITECTURES["encoder_decoder"]
    plain, *quantized = (
        trained_model(Config(model=config, lora=LoraConfig(rank=2, quantize=kind)))
        for kind in ("none", "nf4", "int8")
    )
    for model in quantized:
        assert model.n_params == plain.n_params
        lengths = ([9], [9], [7])
        assert model.flops_per_token(*lengths) == plain.flops_per_token(*lengths)
        assert model != plain and model.unrolled == build_model(config).unrolled


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(n_experts=4, experts_per_token=2),
            r"quantize: 'nf4', but the weights of experts \(layers.mlp.\w+\) cannot be quantized",
        ),
        (dict(d_ff=33), r"quantize: 'nf4' needs blocks of inputs, and layers.mlp.down has an odd"),
    ],
)
def test_what_cannot_be_quantized_is_refused(fields, message):
    config = Config(
        model=DecoderConfig(vocab_size=40, **fields),
        lora=LoraConfig(rank=2, targets="attention", quantize="nf4"),
    )
    with pytest.raises(UserError, match=message):
        trained_model(config)


def test_quantized_weights_are_a_pair_of_arrays():
    weight = quantize(jnp.ones((64, 3)), "int8")
    assert isinstance(weight, QuantizedWeight) and weight.values.dtype == jnp.int8
    np.testing.assert_array_equal(dequantize(weight, jnp.bfloat16), np.ones((64, 3)))
