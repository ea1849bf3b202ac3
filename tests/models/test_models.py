"""What both architectures promise: packing, scanning, dtypes, initialization, sizes, FLOPs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.config.schema import DecoderConfig
from ift_jax.models import build_model, flops
from tests.models.architectures import (
    DECODER,
    HYBRID,
    LOCAL,
    T5,
    T5_1_0,
    T5GEMMA,
    T5GEMMA_2,
    UMT5,
    batch_of,
    each_architecture,
    each_config,
    full_batch,
    jit,
    jitted_logits,
    make,
    random_example,
)


@each_config
def test_packed_states_equal_those_of_examples_alone(config):
    rng = np.random.default_rng(0)
    # An empty encoder part, single tokens, and rows that are full and not full.
    sizes = [[(5, 4), (0, 3), (11, 5)], [(1, 1), (7, 6)], [(16, 12)]]
    rows = [[random_example(rng, *size) for size in row] for row in sizes]
    _, params, hidden = make(config)
    packed = np.asarray(hidden(params, batch_of(config, rows)))
    assert np.isfinite(packed).all()
    alone = hidden(params, batch_of(config, [[example] for row in rows for example in row]))
    alone = iter(np.asarray(alone))
    for row, states in zip(rows, packed, strict=True):
        start = 0
        for _, decoder_part in row:
            n = len(decoder_part)
            # Rounding: T5Gemma 2 differs by 2e-5 to 5e-5, T5 1.0 by 7e-7.
            expected = next(alone)[:n]
            np.testing.assert_allclose(states[start : start + n], expected, atol=4e-5, rtol=3e-5)
            start += n


@each_architecture
def test_gradients_are_finite_with_padding_and_empty_encoder_parts(config):
    rng = np.random.default_rng(1)
    batch = batch_of(config, [[random_example(rng, 0, 4)], [random_example(rng, 3, 2)], []])
    model, params, _ = make(config)

    def loss(params):
        return jnp.square(model.logits(params, model.hidden(params, batch))).sum()

    gradients = jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_an_empty_encoder_part_contributes_exactly_nothing():
    rng = np.random.default_rng(2)
    _, params, hidden = make(T5)
    _, decoder_part = random_example(rng, 0, 6)
    got = hidden(params, batch_of(T5, [[([], decoder_part)]]))
    # The same decoder with the output projection of cross-attention at zero.
    cross = params["decoder"]["layers"]["cross"]
    silent = jax.tree.map(lambda leaf: leaf, params)
    silent["decoder"]["layers"]["cross"] = cross | {"out": {"weight": cross["out"]["weight"] * 0}}
    want = hidden(silent, batch_of(T5, [[([3, 4], decoder_part)]]))
    np.testing.assert_allclose(got[0, :6], want[0, :6], atol=1e-6)


def test_prefix_mask_lets_the_prompt_attend_to_itself_both_ways():
    _, params, hidden = make(DECODER)
    batch = batch_of(DECODER, [[([], [5, 6, 7, 8, 9])]])
    changed = batch | {"tokens": np.where(batch["tokens"] == 7, 11, batch["tokens"])}
    prefix = {"prefix_mask": batch["positions"] * (batch["segment_ids"] > 0) < 3}

    def moved(extra):
        before = np.asarray(hidden(params, batch | extra)[0])
        after = np.asarray(hidden(params, changed | extra)[0])
        return np.abs(before - after).max(axis=-1) > 1e-6

    # Token 2 changes: causally only positions from 2 on attend to it, with the prefix 0 and 1 too.
    assert moved({})[:5].tolist() == [False, False, True, True, True]
    assert moved(prefix)[:5].tolist() == [True] * 5


@pytest.mark.parametrize("config", [DECODER, LOCAL, HYBRID, T5, T5_1_0, UMT5, T5GEMMA, T5GEMMA_2])
def test_scan_equals_a_loop_over_layers(config):
    model, params, _ = make(config)
    batch = full_batch(config)
    scanned = jitted_logits(model)(params, batch)
    unstacked = model.unstack(params)
    looped = jitted_logits(model.unrolled)(unstacked, batch)
    np.testing.assert_allclose(scanned, looped, atol=2e-5)
    assert jax.tree.map(jnp.shape, unstacked) == jax.tree.map(jnp.shape, model.unrolled.shapes)


@each_architecture
def test_the_program_does_not_grow_with_depth(config):
    batch = full_batch(config)

    def program_size(n_layers):
        names = ("n_layers", "n_encoder_layers", "n_decoder_layers")
        depth = {name: n_layers for name in names if hasattr(config, name)}
        model = build_model(dataclasses.replace(config, remat="full", **depth))
        step = jax.grad(lambda params: model.hidden(params, batch).sum())
        return len(jax.jit(step).lower(model.shapes).as_text().splitlines())

    assert program_size(9) == program_size(3)


@each_architecture
def test_bfloat16_is_close_and_keeps_float32_parameters(config):
    _, params, hidden = make(config)
    half_model, _, half_hidden = make(dataclasses.replace(config, dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(half_model.shapes)} == {jnp.dtype("float32")}
    batch = full_batch(config)
    half = half_hidden(params, batch)
    assert half.dtype == jnp.bfloat16
    want = np.asarray(hidden(params, batch))
    error = np.asarray(half, np.float32) - want
    assert np.sqrt(np.mean(error**2) / np.mean(want**2)) < 0.05


@each_architecture
def test_the_first_loss_is_near_that_of_guessing(config):
    config = dataclasses.replace(config, vocab_size=512, d_model=64)
    model = build_model(config)
    batch = full_batch(config)
    targets = np.random.default_rng(5).integers(0, 512, (4, 12))

    @jit
    def first_loss(key, batch):
        params = model.init(key)
        log_p = jax.nn.log_softmax(model.logits(params, model.hidden(params, batch)))
        return -jnp.take_along_axis(log_p, targets[..., None], -1).mean()

    loss = first_loss(jax.random.key(0), batch)
    assert abs(loss - np.log(512)) < 1.0


@each_architecture
def test_axes_name_every_dimension_of_every_parameter(config):
    model = build_model(config)

    def check(shape, axes):
        assert len(shape.shape) == len(axes)
        return len(axes)

    jax.tree.map(check, model.shapes, model.logical_axes)
    initial = jax.eval_shape(model.init, jax.random.key(0))
    assert initial == model.shapes
    assert model.n_params == sum(leaf.size for leaf in jax.tree.leaves(initial))


@each_architecture
def test_fresh_parameters_have_the_types_of_trained_ones(config):
    """Otherwise the first step, and everything that decodes before it, would compile twice."""
    fresh = jax.eval_shape(build_model(config).init, jax.random.key(0))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))


def test_flops_count_the_matrix_products_of_a_decoder():
    config = dataclasses.replace(DECODER, n_layers=2)
    projections = 24 * 24 * 2 + 24 * 12 * 2 + 3 * 24 * 40
    head = 24 * 64
    pairs = 3 * 4 / 2 + 5 * 6 / 2
    want = (6 * (2 * projections + head) * 8 + 12 * 2 * 24 * pairs) / 8
    assert build_model(config).flops_per_token([3, 5], [3, 5]) == pytest.approx(want)
    local = dataclasses.replace(config, sliding_window=2)
    local_pairs = (1 + 2 + 2) + (1 + 2 + 2 + 2 + 2)
    assert build_model(local).flops_per_token([3, 5], [3, 5]) == pytest.approx(
        want - 12 * 2 * 24 * (pairs - local_pairs) / 8
    )


def test_flops_count_the_matrix_products_of_an_encoder_decoder():
    attention = 24 * 18 * 4
    mlp = 3 * 24 * 40
    head = 24 * 64
    cross_kv = 24 * 18 * 2  # They are applied to the encoder's tokens.
    on_encoder = 2 * (attention + mlp) + 3 * cross_kv
    on_decoder = 3 * (attention + mlp + 24 * 18 * 2) + head
    pairs = 2 * 7 * 7 + 3 * (4 * 5 / 2 + 4 * 7)
    want = (6 * (on_encoder * 7 + on_decoder * 4) + 12 * 18 * pairs) / 11
    assert build_model(T5).flops_per_token([4], [4], [7]) == pytest.approx(want)


@pytest.mark.parametrize(
    ("config", "before", "after"), [(T5GEMMA, 3, 3), (T5GEMMA_2, 1, 2)], ids=["1", "2"]
)
def test_flops_count_the_pairs_inside_the_windows_of_t5gemma(config, before, after):
    n, m = 4, 7
    everywhere = [(q, k) for q in range(m) for k in range(m)]
    near = [(q, k) for q, k in everywhere if -before <= k - q <= after]
    own = [(q, k) for q in range(n) for k in range(q + 1)]
    local = [(q, k) for q, k in own if q - k < config.sliding_window]
    # Layers are local and global in turn, the first one local.
    in_encoder = 2 * len(near) + len(everywhere)
    in_decoder = len(local) + len(own) + 2 * n * m
    heads = config.encoder_n_heads * in_encoder + config.n_heads * in_decoder
    without_matrices = flops.flops_per_token(config, {("embedding",): 0.0}, [n], [n], [m])
    assert without_matrices * (n + m) == pytest.approx(12 * config.head_dim * heads)


def test_a_layer_with_every_kind_of_weight_has_random_ones():
    more = dict(n_experts=4, experts_per_token=2, shared_d_ff=8, layer_input_dim=4)
    model = build_model(dataclasses.replace(HYBRID, **more))
    layers = jax.jit(model.init)(jax.random.key(0))["layers"]["linear"]
    weights = [leaf for leaf in jax.tree.leaves(layers) if leaf.ndim > 2]
    assert len({float(weight.sum()) for weight in weights}) == len(weights)


def test_a_vocabulary_must_be_given():
    with pytest.raises(ValueError, match="vocab_size"):
        build_model(DecoderConfig())
