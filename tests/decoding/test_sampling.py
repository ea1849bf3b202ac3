"""The distribution that tokens are drawn from, against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.decoding.sampling import Sampling, candidate_tokens, penalize_seen, sample_token

LOGITS = np.random.default_rng(0).normal(0, 2, (3, 11)).astype(np.float32)


def slow_distribution(logits, temperature, top_k, top_p, min_p=0.0):
    p = np.exp(logits.astype(np.float64) / temperature)
    order = sorted(range(len(p)), key=lambda i: -p[i])
    kept = order[:top_k] if top_k else order
    total, chosen, reached = sum(p[i] for i in kept), [], 0.0
    for i in kept:
        if reached >= top_p:
            break
        if p[i] >= min_p * max(p):
            chosen.append(i)
        reached += p[i] / total
    want = np.zeros(len(p))
    for i in chosen:
        want[i] = p[i] / sum(p[j] for j in chosen)
    return want


SETTINGS = [
    (1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 4, 1.0), (1.3, 0, 0.6), (0.9, 5, 0.8), (1.0, 50, 0.01),
    (1.0, 0, 1.0, 0.1), (1.5, 6, 0.9, 0.2), (0.8, 0, 0.95, 0.05), (1.0, 0, 1.0, 1.0),
]  # fmt: skip


def distribution(logits, sampling):
    weights, ids = jax.jit(candidate_tokens, static_argnums=1)(logits, sampling)
    got = np.zeros(logits.shape)
    np.put_along_axis(got, np.asarray(ids), np.asarray(jax.nn.softmax(weights)), axis=1)
    return got


@pytest.mark.parametrize("settings", SETTINGS)
def test_candidates_are_the_distribution(settings):
    want = [slow_distribution(row, *settings) for row in LOGITS]
    np.testing.assert_allclose(distribution(LOGITS, Sampling(*settings)), want, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS)
def test_candidates_are_those_of_transformers(settings):
    torch = pytest.importorskip("torch", reason="the reference works on torch tensors")
    reference = pytest.importorskip("transformers", reason="the reference lives there")
    sampling = Sampling(*settings, repetition_penalty=1.3)
    # In the order of `generate`; each is left out where its value says so, as there.
    warpers = [reference.RepetitionPenaltyLogitsProcessor(1.3)]
    warpers += [reference.TemperatureLogitsWarper(sampling.temperature)]
    warpers += [reference.TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [reference.TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    warpers += [reference.MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    logits = np.random.default_rng(1).normal(0, 3, (4, 60)).astype(np.float32)
    seen_ids = np.random.default_rng(2).integers(0, 60, (4, 15))
    want = reference.LogitsProcessorList(warpers)(torch.tensor(seen_ids), torch.tensor(logits))
    seen = np.zeros(logits.shape, bool)
    np.put_along_axis(seen, seen_ids, True, axis=1)
    penalized = np.asarray(penalize_seen(jnp.asarray(logits), jnp.asarray(seen), 1.3))
    np.testing.assert_allclose(
        distribution(penalized, sampling), torch.softmax(want, -1).numpy(), atol=1e-6
    )


def test_a_penalty_changes_the_likeliest_token():
    logits = jnp.asarray([[2.0, 1.5, -1.0], [-1.0, -1.25, -3.0]])
    seen = jnp.asarray([[True, False, True], [True, False, False]])
    penalized = [[1.0, 1.5, -2.0], [-2.0, -1.25, -3.0]]
    np.testing.assert_array_equal(penalize_seen(logits, seen, 2.0), penalized)
    keys = jax.random.split(jax.random.key(1), 2)
    got = sample_token(logits, keys, Sampling(repetition_penalty=2.0), seen)
    np.testing.assert_array_equal(got, [1, 1])


def test_choices_follow_the_distribution():
    n, sampling = 20_000, Sampling(1.0, 6, 0.9)
    keys = jax.random.split(jax.random.key(1), n)
    logits = np.broadcast_to(LOGITS[0], (n, 11))
    drawn = jax.jit(sample_token, static_argnums=2)(logits, keys, sampling)
    counts = np.bincount(drawn, minlength=11)
    want = slow_distribution(LOGITS[0], 1.0, 6, 0.9) * n
    assert (counts[want == 0] == 0).all()
    seen = want > 0
    chi_square = ((counts[seen] - want[seen]) ** 2 / want[seen]).sum()
    assert chi_square < 25  # Five degrees of freedom at the most: p about 1e-4.


def test_temperature_zero_is_the_likeliest_token():
    keys = jax.random.split(jax.random.key(1), 3)
    got = sample_token(jnp.asarray(LOGITS), keys, Sampling(0.0, 3, 0.5))
    np.testing.assert_array_equal(got, LOGITS.argmax(axis=1))


@pytest.mark.parametrize(
    "wrong",
    [(-1.0,), (float("nan"),), (1.0, -1), (1.0, 0, 0.0), (1.0, 0, 1.5), (1.0, 0, 1.0, 1.1),
     (1.0, 0, 1.0, 0.0, 0.0)],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="top_p"):
        Sampling(*wrong)
