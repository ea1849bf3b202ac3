"""The fused linear cross-entropy against a direct computation in float64, and closed forms."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.models import fused_cross_entropy
from ift_jax.models.fused_cross_entropy import (
    CrossEntropyOptions,
    chunk_counts,
    chunk_length,
    fused_linear_cross_entropy,
    wide_chunk_length,
)
from ift_jax.sharding import rules
from ift_jax.training.loss_normalization import normalized_weights


def reference(x, w, targets, weights, options):
    """Compute from full logits in float64, one position at a time.

    Central differences of it are exact enough to hold float32 code to 1e-5.
    """
    logits = np.einsum("bld,dv->blv", x.astype(np.float64), w.astype(np.float64))
    if options.softcap:
        logits = options.softcap * np.tanh(logits / options.softcap)
    vocab = w.shape[1]
    total = 0.0
    for b, t in np.ndindex(targets.shape):
        row = logits[b, t]
        log_z = row.max() + np.log(np.exp(row - row.max()).sum())
        target = np.full(vocab, options.label_smoothing / (vocab - 1))
        target[targets[b, t]] = 1 - options.label_smoothing
        nonzero = target[target > 0]
        entropy = -(nonzero * np.log(nonzero)).sum()
        loss = -(target * (row - log_z)).sum() - entropy + options.z_loss * log_z**2
        total += weights[b, t] * loss
    return total


def problem(seed=0, batch=3, length=11, d=5, vocab=17):
    """Random hidden states, head, targets and weights; half of the weights are 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, length, d)).astype(np.float32)
    w = rng.normal(size=(d, vocab)).astype(np.float32)
    targets = rng.integers(0, vocab, (batch, length)).astype(np.int32)
    weights = rng.choice([0.0, 0.5, 1.0, 2.0], (batch, length), p=[0.5, 0.1, 0.3, 0.1])
    return x, w, targets, weights.astype(np.float32)


def loss_of(targets, weights, options):
    """The loss sum as a function of hidden states and head."""

    def loss(x, w):
        total, _ = fused_linear_cross_entropy(x, w, targets, weights, options)
        return total

    return loss


OPTIONS = [
    CrossEntropyOptions(),
    CrossEntropyOptions(softcap=3.0, chunk=4),
    CrossEntropyOptions(z_loss=0.01, chunk=3),
    CrossEntropyOptions(label_smoothing=0.1, z_loss=1e-3, softcap=2.0, chunk=2),
    CrossEntropyOptions(chunk=1),
]


@pytest.mark.parametrize("platform", ["cpu", "tpu"])  # The head and the logits lie differently.
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_value_and_gradient(options, platform, monkeypatch):
    monkeypatch.setattr(rules, "platform", lambda: platform)
    x, w, targets, weights = problem()
    loss = loss_of(targets, weights, options)
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, w)
    np.testing.assert_allclose(value, reference(x, w, targets, weights, options), rtol=1e-5)
    # Derivatives along random directions, by central differences in float64.
    rng = np.random.default_rng(1)
    for which, gradient in enumerate(gradients):
        for _ in range(3):
            direction = rng.normal(size=gradient.shape)
            ends = []
            for distance in (1e-5, -1e-5):
                moved = [x.astype(np.float64), w.astype(np.float64)]
                moved[which] = moved[which] + distance * direction
                ends.append(reference(*moved, targets, weights, options))
            expected = (ends[0] - ends[1]) / 2e-5
            got = (np.asarray(gradient) * direction).sum()
            np.testing.assert_allclose(got, expected, rtol=2e-4)


def test_parts_stand_where_the_tokens_are():
    x, w, targets, weights = problem(seed=3)
    options = CrossEntropyOptions(chunk=4, z_loss=0.5)
    _, parts = fused_linear_cross_entropy(x, w, targets, weights, options)
    logits = x @ w
    log_z = jax.nn.logsumexp(logits, axis=-1)
    nll = log_z - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    trained = weights != 0
    np.testing.assert_allclose(parts.nll, np.where(trained, nll, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.z, np.where(trained, 0.5 * log_z**2, 0), rtol=1e-5)
    right = (logits.argmax(-1) == targets) & trained
    np.testing.assert_array_equal(np.asarray(parts.correct) > 0, right)


def test_perfect_prediction_with_smoothing_costs_nothing():
    vocab, smoothing = 8, 0.2
    row = np.full(vocab, np.log(smoothing / (vocab - 1)))
    row[3] = np.log(1 - smoothing)
    value, _ = fused_linear_cross_entropy(
        jnp.ones((1, 1, 1)),
        jnp.asarray(row[None], jnp.float32),
        np.full((1, 1), 3, np.int32),
        np.ones((1, 1), np.float32),
        CrossEntropyOptions(label_smoothing=smoothing),
    )
    np.testing.assert_allclose(value, 0.0, atol=1e-6)


def test_untrained_positions_cost_nothing_and_are_never_computed():
    x, w, targets, weights = problem()
    x = np.where(weights[..., None] == 0, np.nan, x)  # A NaN that was touched would spread.
    loss = loss_of(targets, weights, CrossEntropyOptions(chunk=1))
    value, (dx, dw) = jax.value_and_grad(loss, argnums=(0, 1))(x, w)
    assert np.isfinite(value) and np.isfinite(dw).all()
    assert (np.asarray(dx)[weights == 0] == 0).all()


def test_nothing_trained_is_zero():
    x, w, targets, weights = problem()
    loss = loss_of(targets, 0 * weights, CrossEntropyOptions())
    value, dx = jax.value_and_grad(loss)(x, w)
    assert value == 0 and not np.asarray(dx).any()


def test_full_logits_never_exist():
    vocab, length = 4096, 512
    x = jnp.ones((1, length, 8))
    w = jnp.ones((8, vocab))
    targets = jnp.zeros((1, length), jnp.int32)
    weights = jnp.ones((1, length))
    gradient = jax.jit(jax.grad(loss_of(targets, weights, CrossEntropyOptions())))
    temporary = gradient.lower(x, w).compile().memory_analysis().temp_size_in_bytes
    assert temporary < vocab * length * 4


def test_normalizations_in_closed_form():
    weights = jnp.array([[1.0, 1.0, 0.5, 0.0, 2.0], [0.0, 0.0, 0.0, 1.0, 0.0]])
    segments = jnp.array([[1, 1, 2, 2, 2], [1, 1, 2, 2, 0]])
    same, total = normalized_weights(weights, segments, "tokens", 7.0)
    np.testing.assert_allclose(same, weights)
    assert total == 5.5
    scaled, count = normalized_weights(weights, segments, "examples", 7.0)
    assert count == 3  # The first segment of the second row has no trained token.
    expected = [[0.5, 0.5, 0.2, 0.0, 0.8], [0.0, 0.0, 0.0, 1.0, 0.0]]
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    assert normalized_weights(weights, segments, "constant", 7.0)[1] == 7.0
    assert normalized_weights(weights, segments, "sum", 7.0)[1] == 1.0


@pytest.mark.parametrize(
    ("positions", "vocab", "chunk", "wide"),
    [
        (1024, 49_152, 128, 512),  # SmolLM2-135M's shape, 4 rows of 256.
        (512, 32_128, 64, 256),  # T5 1.1 small, 8 rows of 64.
        (4096, 49_152, 341, 682),  # A wide chunk has at most 2^25 logits.
        (4096, 128_256, 130, 260),
        (1024, 4096, 128, 128),  # A small head is not worth it.
        (100, 49_152, 64, 64),
    ],
)
def test_the_length_of_chunks_on_a_cpu(positions, vocab, chunk, wide):
    assert chunk_length(positions, vocab) == chunk
    assert wide_chunk_length(chunk, positions, vocab) == wide
    assert wide_chunk_length(chunk_length(positions, vocab, 20), positions, vocab, 20) == 20


def test_an_accelerator_has_one_length_of_chunks(monkeypatch):
    monkeypatch.setattr(rules, "platform", lambda: "tpu")
    assert wide_chunk_length(128, 4096, 49_152) == 128


def test_a_cpu_takes_a_tied_embedding_and_the_logits_as_they_lie():
    n, d, vocab = 24, 8, 4096
    compiled = (
        jax.jit(
            jax.grad(
                lambda embedding, x: fused_linear_cross_entropy(
                    x[None],
                    embedding.T,
                    jnp.zeros((1, n), jnp.int32),
                    jnp.ones((1, n)),
                    CrossEntropyOptions(chunk=n),
                )[0]
            )
        )
        .lower(jnp.zeros((vocab, d)), jnp.zeros((n, d)))
        .compile()
        .as_text()
    )
    moved = re.findall(r"f32\[(\S+)\]\S* (?:copy|transpose)\(", compiled)
    assert not {f"{vocab},{d}", f"{d},{vocab}", f"{vocab},{n}", f"{n},{vocab}"} & set(moved)
    assert re.search(rf"f32\[{vocab},{n}\]\S* dot\(", compiled)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_chunks_cover_what_is_trained_and_little_else(parts):
    n_trained = np.arange(1000)
    wide, narrow = map(np.asarray, chunk_counts(n_trained, 10, 10 * parts))
    computed = 10 * (parts * wide + narrow)
    assert (computed >= n_trained).all()
    assert (computed < n_trained + 20).all()
    assert (narrow < max(2, parts - 1)).all() or parts == 1
    assert (wide[0], narrow[0]) == (0, 0)


def test_wide_and_narrow_chunks_give_the_sum_over_positions(monkeypatch):
    monkeypatch.setattr(fused_cross_entropy, "MIN_CHUNK_LOGITS", 1)
    rng = np.random.default_rng(0)
    n_positions, vocab = 520, 11
    x = rng.normal(size=(1, n_positions, 4)).astype(np.float32)
    w = rng.normal(size=(4, vocab)).astype(np.float32)
    targets = rng.integers(0, vocab, (1, n_positions)).astype(np.int32)
    assert wide_chunk_length(chunk_length(n_positions, vocab), n_positions, vocab) == 4 * 65

    def loss(weights, options):
        return jax.value_and_grad(
            lambda x, w: fused_linear_cross_entropy(x, w, targets, weights, options)[0], (0, 1)
        )

    ours = jax.jit(lambda weights: loss(weights, CrossEntropyOptions())(x, w))
    by_one = jax.jit(lambda weights: loss(weights, CrossEntropyOptions(chunk=520))(x, w))
    for n_trained in (0, 1, 65, 66, 195, 196, 261, 325, 326, 520):
        weights = np.zeros(n_positions, np.float32)
        weights[rng.permutation(n_positions)[:n_trained]] = 0.5
        for got, want in zip(
            jax.tree.leaves(ours(weights[None])),
            jax.tree.leaves(by_one(weights[None])),
            strict=True,
        ):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
