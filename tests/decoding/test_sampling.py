"""The distribution that tokens are drawn from, against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.decoding.sampling import Sampling, candidates, choose

LOGITS = np.random.default_rng(0).normal(0, 2, (3, 11)).astype(np.float32)


def slow_distribution(logits, temperature, top_k, top_p):
    p = np.exp(logits.astype(np.float64) / temperature)
    order = sorted(range(len(p)), key=lambda i: -p[i])
    kept = order[:top_k] if top_k else order
    total, chosen, reached = sum(p[i] for i in kept), [], 0.0
    for i in kept:
        if reached >= top_p:
            break
        chosen.append(i)
        reached += p[i] / total
    want = np.zeros(len(p))
    for i in chosen:
        want[i] = p[i] / sum(p[j] for j in chosen)
    return want


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 4, 1.0), (1.3, 0, 0.6), (0.9, 5, 0.8), (1.0, 50, 0.01)],
)
def test_candidates_are_the_distribution(temperature, top_k, top_p):
    weights, ids = candidates(jnp.asarray(LOGITS), Sampling(temperature, top_k, top_p))
    got = np.zeros(LOGITS.shape)
    np.put_along_axis(got, np.asarray(ids), np.asarray(jax.nn.softmax(weights)), axis=1)
    want = [slow_distribution(row, temperature, top_k, top_p) for row in LOGITS]
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_choices_follow_the_distribution():
    n, sampling = 20_000, Sampling(1.0, 6, 0.9)
    keys = jax.random.split(jax.random.key(1), n)
    drawn = choose(jnp.broadcast_to(LOGITS[0], (n, 11)), keys, sampling)
    counts = np.bincount(drawn, minlength=11)
    want = slow_distribution(LOGITS[0], 1.0, 6, 0.9) * n
    assert (counts[want == 0] == 0).all()
    seen = want > 0
    chi_square = ((counts[seen] - want[seen]) ** 2 / want[seen]).sum()
    assert chi_square < 25  # Five degrees of freedom at the most: p about 1e-4.


def test_temperature_zero_is_the_likeliest_token():
    keys = jax.random.split(jax.random.key(1), 3)
    got = choose(jnp.asarray(LOGITS), keys, Sampling(0.0, 3, 0.5))
    np.testing.assert_array_equal(got, LOGITS.argmax(axis=1))


@pytest.mark.parametrize("wrong", [(-1.0, 0, 1.0), (1.0, -1, 1.0), (1.0, 0, 0.0), (1.0, 0, 1.5)])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="top_p"):
        Sampling(*wrong)
