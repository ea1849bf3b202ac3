"""What both architectures promise: packing, scanning, remat, dropout, dtypes, sizes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.ad_checkpoint import saved_residuals  # Public only as a printer.

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig
from ift_jax.models import build_model
from ift_jax.models.dropout import dropout_masks, dropout_row_keys, fold_keys
from ift_jax.models.remat import REMAT_POLICIES

DECODER = DecoderConfig(
    vocab_size=64, d_model=24, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=6, d_ff=40
)
LOCAL = dataclasses.replace(
    DECODER, sliding_window=3, global_every=2, qk_norm="head", norm_placement="both"
)
T5 = EncoderDecoderConfig(
    vocab_size=64,
    d_model=24,
    n_encoder_layers=2,
    n_decoder_layers=3,
    n_heads=3,
    head_dim=6,
    d_ff=40,
    relative_buckets=8,
    relative_max_distance=12,
)
T5_OLD = dataclasses.replace(T5, activation="relu", tied_embedding=True)
each_model = pytest.mark.parametrize("config", [LOCAL, T5], ids=["decoder", "t5"])
every_model = pytest.mark.parametrize(
    "config", [DECODER, LOCAL, T5, T5_OLD], ids=["plain", "local", "t5", "t5_old"]
)
# These programs run once: compiling them without optimisation takes a third of the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def make(config):
    """A model, random parameters (norms and biases off their start), its jitted states."""
    model = build_model(config)
    rng = np.random.default_rng(0)

    def weight(shape, axes):
        norm = axes[-1] == "norm"
        std = 0.1 if norm or "vocab" in axes else shape.shape[-2] ** -0.5
        return rng.normal(float(norm), std, shape.shape).astype(np.float32)

    return model, jax.tree.map(weight, model.shapes, model.logical_axes), jit(model.hidden)


def place(examples, length, prefix=""):
    """Rows of examples (lists of token lists) as a part of a batch."""
    rows = len(examples)
    tokens, segment_ids, positions = np.zeros((3, rows, length), np.int32)
    for row, parts in enumerate(examples):
        at = 0
        for segment, part in enumerate(parts, start=1):
            where = slice(at, at + len(part))
            tokens[row, where] = part
            segment_ids[row, where] = segment
            positions[row, where] = np.arange(len(part))
            at += len(part)
        assert at <= length
    parts = {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}
    return {prefix + name: value for name, value in parts.items()}


def batch_of(config, rows, lengths=(16, 12)):
    """Rows of (encoder part, decoder part) pairs; a decoder takes the second parts."""
    row_ids = {"row_ids": np.arange(len(rows), dtype=np.int32)}
    targets = [[target for _, target in row] for row in rows]
    if isinstance(config, DecoderConfig):
        return place(targets, lengths[1]) | row_ids
    sources = [[source for source, _ in row] for row in rows]
    return place(sources, lengths[0], "encoder_") | place(targets, lengths[1], "decoder_") | row_ids


def example(rng, n_source, n_target):
    return rng.integers(1, 64, n_source).tolist(), rng.integers(1, 64, n_target).tolist()


def dense_batch(config, rows=4, seed=0):
    rng = np.random.default_rng(seed)
    return batch_of(config, [[example(rng, 16, 12)] for _ in range(rows)])


@every_model
def test_packed_states_equal_those_of_examples_alone(config):
    rng = np.random.default_rng(0)
    # An empty encoder part, single tokens, and rows that are full and not full.
    sizes = [[(5, 4), (0, 3), (11, 5)], [(1, 1), (7, 6)], [(16, 12)]]
    rows = [[example(rng, *size) for size in row] for row in sizes]
    _, params, hidden = make(config)
    packed = np.asarray(hidden(params, batch_of(config, rows)))
    assert np.isfinite(packed).all()
    alone = hidden(params, batch_of(config, [[part] for row in rows for part in row]))
    alone = iter(np.asarray(alone))
    for row, of_row in zip(rows, packed, strict=True):
        at = 0
        for _, target in row:
            n = len(target)
            np.testing.assert_allclose(of_row[at : at + n], next(alone)[:n], atol=2e-5)
            at += n


@each_model
def test_gradients_are_finite_with_padding_and_empty_encoder_parts(config):
    rng = np.random.default_rng(1)
    batch = batch_of(config, [[example(rng, 0, 4)], [example(rng, 3, 2)], []])
    model, params, _ = make(config)

    def loss(params):
        return jnp.square(model.logits(params, model.hidden(params, batch))).sum()

    grads = jit(jax.grad(loss))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_an_empty_encoder_part_contributes_exactly_nothing():
    rng = np.random.default_rng(2)
    _, params, hidden = make(T5)
    target = example(rng, 0, 6)[1]
    got = hidden(params, batch_of(T5, [[([], target)]]))
    # The same decoder with cross-attention's output projection at zero.
    cross = params["decoder"]["layers"]["cross"]
    silent = jax.tree.map(lambda x: x, params)
    silent["decoder"]["layers"]["cross"] = cross | {"out": {"weight": cross["out"]["weight"] * 0}}
    want = hidden(silent, batch_of(T5, [[([3, 4], target)]]))
    np.testing.assert_allclose(got[0, :6], want[0, :6], atol=1e-6)


def test_prefix_mask_lets_the_prompt_see_itself_both_ways():
    _, params, hidden = make(DECODER)
    batch = batch_of(DECODER, [[([], [5, 6, 7, 8, 9])]])
    changed = batch | {"tokens": np.where(batch["tokens"] == 7, 11, batch["tokens"])}
    prefix = {"prefix_mask": batch["positions"] * (batch["segment_ids"] > 0) < 3}

    def moved(extra):
        a, b = (hidden(params, each | extra)[0] for each in (batch, changed))
        return np.abs(np.asarray(a - b)).max(axis=-1) > 1e-6

    # Token 2 changes: causally only positions 2.. see it, with the prefix 0 and 1 do as well.
    assert moved({})[:5].tolist() == [False, False, True, True, True]
    assert moved(prefix)[:5].tolist() == [True] * 5


@every_model
def test_scan_equals_a_loop_over_layers(config):
    (model, params, hidden), batch = make(config), dense_batch(config)
    scanned = model.logits(params, hidden(params, batch))
    apart = model.unstack(params)
    looped = model.unrolled.logits(apart, jit(model.unrolled.hidden)(apart, batch))
    np.testing.assert_allclose(scanned, looped, atol=2e-5)
    assert jax.tree.map(jnp.shape, apart) == jax.tree.map(jnp.shape, model.unrolled.shapes)


@each_model
def test_the_program_does_not_grow_with_depth(config):
    def size(n):
        depth = (
            dict(n_layers=n)
            if isinstance(config, DecoderConfig)
            else dict(n_encoder_layers=n, n_decoder_layers=n)
        )
        model = build_model(dataclasses.replace(config, remat="full", **depth))
        batch = dense_batch(config)
        step = jax.grad(lambda params: model.hidden(params, batch).sum())
        return len(jax.jit(step).lower(model.shapes).as_text().splitlines())

    assert size(9) == size(3)


def remat_loss(config, remat, **fields):
    model, params, _ = make(dataclasses.replace(config, remat=remat, **fields))
    batch = dense_batch(config)
    return lambda p: jnp.square(model.logits(p, model.hidden(p, batch))).sum(), params


@each_model
def test_remat_policies_give_the_same_gradients(config):
    others = REMAT_POLICIES if config is LOCAL else ("minimal", "full")
    results = {}
    for remat in ("none", *others):
        loss, params = remat_loss(config, remat)
        results[remat] = jit(jax.value_and_grad(loss))(params)
    for remat in others:
        for a, b in zip(*map(jax.tree.leaves, (results["none"], results[remat])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * float(jnp.abs(a).max()))


@pytest.mark.parametrize("attention", ["xla", "splash", "triton"])
def test_remat_policies_keep_what_they_say(attention):
    """By what JAX keeps of the layers (whose arrays have an axis of layers) for the backward pass:
    counted in arrays of one value a position and unit of width."""
    c, B, L = LOCAL, 4, 12
    host, device = {}, {}
    for remat in ("none", *REMAT_POLICIES):
        loss, params = remat_loss(c, remat, attention=attention)
        kept = [
            aval
            for aval, source in saved_residuals(loss, params)
            if "argument" not in source and aval.ndim > 2 and aval.shape[0] == c.n_layers
        ]
        on_host = [aval for aval in kept if "<host>" in str(aval)]
        host[remat] = sum(aval.size for aval in on_host) / (c.n_layers * B * L)
        device[remat] = sum(aval.size for aval in kept) / (c.n_layers * B * L) - host[remat]
    q, kv = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    # Kernels keep their output and a sum a row, both padded to a block; triton's heads are of 16.
    block, width = {"splash": (128, c.head_dim), "triton": (64, 16)}.get(attention, (0, 0))
    of_attention = c.n_heads * (width + 1) * block / L or q
    assert device["full"] == c.d_model and not host["full"]
    assert device["offload"] == 0 and host["offload"] == c.d_model
    assert device["save_attention"] == pytest.approx(c.d_model + of_attention)
    projections = q + 2 * kv + 2 * c.d_ff + 2 * c.d_model
    assert device["dots"] == c.d_model + projections
    assert device["minimal"] == pytest.approx(device["dots"] + of_attention)
    assert device["none"] > device["minimal"]


@each_model
def test_bfloat16_is_close_and_keeps_float32_parameters(config):
    (_, params, hidden), batch = make(config), dense_batch(config)
    half, _, half_hidden = make(dataclasses.replace(config, dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(half.shapes)} == {jnp.dtype("float32")}
    got, want = half_hidden(params, batch), hidden(params, batch)
    assert got.dtype == jnp.bfloat16
    error = np.asarray(got, np.float32) - np.asarray(want)
    assert np.sqrt(np.mean(error**2) / np.mean(np.asarray(want) ** 2)) < 0.05


@each_model
def test_dropout_depends_on_the_key_and_the_row_number_only(config):
    _, params, hidden = make(dataclasses.replace(config, dropout=0.3))
    batch, key = dense_batch(config, rows=4), jax.random.key(7)
    whole = hidden(params, batch, key)
    for rows in (slice(0, 2), slice(2, 4)):
        part = hidden(params, {name: x[rows] for name, x in batch.items()}, key)
        # Products of other shapes round differently (up to 5e-5 seen); another mask moves 0.1.
        np.testing.assert_allclose(part, whole[rows], atol=2e-4)
    assert np.abs(hidden(params, batch, jax.random.key(8)) - whole).max() > 0.1
    same_text = {name: x[[0, 0, 0, 0]] for name, x in batch.items()}
    rows = hidden(params, same_text | {"row_ids": np.arange(4, dtype=np.int32)}, key)
    assert np.abs(rows[0] - rows[1]).max() > 0.1  # Rows have masks of their own.
    np.testing.assert_array_equal(hidden(params, batch), make(config)[2](params, batch, key))


def test_dropout_preserves_the_expectation():
    keys = dropout_row_keys(jax.random.key(0), {"row_ids": np.arange(64)}, 0.25)
    mask, other_site = map(np.asarray, dropout_masks(fold_keys(keys, 3), 0.25, (50, 20), (1000,)))
    assert set(np.unique(mask).tolist()) == {0.0, np.float32(1 / 0.75)}
    # 64,000 draws: five standard deviations of the mean are 0.012.
    assert abs(mask.mean() - 1) < 0.012
    (other_layer,) = map(np.asarray, dropout_masks(fold_keys(keys, 4), 0.25, (50, 20)))
    for other in (other_layer, other_site.reshape(mask.shape)):  # Independent of each other.
        assert abs((mask == other).mean() - (0.75**2 + 0.25**2)) < 0.012


def test_linear_dropout_rises_from_nothing_to_the_rate():
    # One sublayer at a time adds ones to a stream of zeros: what is zero then was dropped.
    config = dataclasses.replace(
        DECODER, n_layers=4, dropout=0.3, dropout_schedule="linear", output_bias=True, mlp_bias=True
    )
    model, _, hidden = make(config)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), model.shapes)
    zeros["final_norm"]["scale"] += 1
    rows, length = 64, 32
    ones = np.ones((rows, length), np.int32)
    batch = {"tokens": ones, "segment_ids": ones, "positions": ones * np.arange(length, dtype="i4")}
    batch["row_ids"] = np.arange(rows, dtype=np.int32)
    key, seen = jax.random.key(1), []
    for layer in range(4):
        for name, linear in (("attention", "out"), ("mlp", "down")):
            params = jax.tree.map(np.copy, zeros)
            params["layers"][name][linear]["bias"][layer] = 1.0
            dropped = np.asarray(hidden(params, batch, key)) == 0
            # 49,152 draws: five standard deviations of the share are at most 0.0104.
            assert abs(dropped.mean() - 0.3 * layer / 3) < 0.0104 * (layer > 0) + 1e-9
            seen.append(dropped)
            again = np.asarray(hidden(params, batch, key)) == 0
            np.testing.assert_array_equal(again, dropped)  # The key alone decides.
            other = np.asarray(hidden(params, batch, jax.random.key(2))) == 0
            assert (other != dropped).any() == (layer > 0)
    assert all((a != b).any() for a, b in zip(seen[2:], seen[3:], strict=False))


def test_t5_dropout_is_one_mask_for_all_positions():
    # The last dropout follows the final norm: what is zero there shows its mask.
    config = dataclasses.replace(T5, dropout=0.4)
    _, params, hidden = make(config)
    dropped = np.asarray(hidden(params, dense_batch(config), jax.random.key(0))) == 0
    assert 0.3 < dropped.mean() < 0.5
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert (dropped[0] != dropped[1]).any()


@each_model
def test_the_first_loss_is_near_that_of_guessing(config):
    config = dataclasses.replace(config, vocab_size=512, d_model=64)
    model = build_model(config)
    batch = dense_batch(config)
    params = jit(model.init)(jax.random.key(0))
    logits = model.logits(params, jit(model.hidden)(params, batch))
    targets = np.random.default_rng(5).integers(0, 512, logits.shape[:2])
    log_p = np.asarray(jax.nn.log_softmax(logits))
    loss = -np.take_along_axis(log_p, targets[..., None], -1).mean()
    assert abs(loss - np.log(512)) < 1.0


@each_model
def test_axes_name_every_dimension_of_every_parameter(config):
    model = build_model(config)

    def check(shape, axes):
        assert len(shape.shape) == len(axes)
        return len(axes)

    jax.tree.map(check, model.shapes, model.logical_axes)
    initial = jax.eval_shape(model.init, jax.random.key(0))
    assert initial == model.shapes
    assert model.n_params == sum(x.size for x in jax.tree.leaves(initial))


def test_flops_count_the_matrix_products():
    c = dataclasses.replace(DECODER, n_layers=2)
    projections = 24 * 24 * 2 + 24 * 12 * 2 + 3 * 24 * 40
    pairs = 3 * 4 / 2 + 5 * 6 / 2
    want = (6 * (2 * projections + 24 * 64) * 8 + 12 * 2 * 24 * pairs) / 8
    assert build_model(c).flops_per_token([3, 5], [3, 5]) == pytest.approx(want)
    local = dataclasses.replace(c, sliding_window=2)
    fewer = (1 + 2 + 2) + (1 + 2 + 2 + 2 + 2)
    assert build_model(local).flops_per_token([3, 5], [3, 5]) == pytest.approx(
        want - 12 * 2 * 24 * (pairs - fewer) / 8
    )
    attention, mlp = 24 * 18 * 4, 3 * 24 * 40
    on_encoder = 2 * (attention + mlp) + 3 * 24 * 18 * 2  # Cross-attention's keys and values.
    on_decoder = 3 * (attention + mlp + 24 * 18 * 2) + 24 * 64
    seen = 2 * 7 * 7 + 3 * (4 * 5 / 2 + 4 * 7)
    want = (6 * (on_encoder * 7 + on_decoder * 4) + 12 * 18 * seen) / 11
    assert build_model(T5).flops_per_token([4], [4], [7]) == pytest.approx(want)


def test_a_vocabulary_must_be_given():
    with pytest.raises(ValueError, match="vocab_size"):
        build_model(DecoderConfig())


@each_model
def test_fresh_parameters_have_the_types_of_trained_ones(config):
    """Else the first step, and all that decodes before it, would be compiled twice."""
    fresh = jax.eval_shape(build_model(config).init, jax.random.key(0))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))
