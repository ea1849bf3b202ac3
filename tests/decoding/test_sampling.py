"""The distribution that tokens are drawn from, against a loop and `transformers`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.decoding.sampling import (
    Sampling,
    SamplingProgram,
    SamplingRows,
    candidate_tokens,
    penalize_seen,
    sample_token,
)
from ift_jax.errors import UserError

LOGITS = np.random.default_rng(0).normal(0, 2, (3, 11)).astype(np.float32)


SETTINGS = [
    Sampling(temperature=1.0),
    Sampling(temperature=0.7),
    Sampling(temperature=1.0, top_k=4),
    Sampling(temperature=1.3, top_p=0.6),
    Sampling(temperature=0.9, top_k=5, top_p=0.8),
    Sampling(temperature=1.0, top_k=50, top_p=0.01),
    Sampling(temperature=1.0, min_p=0.1),
    Sampling(temperature=1.5, top_k=6, top_p=0.9, min_p=0.2),
    Sampling(temperature=0.8, top_p=0.95, min_p=0.05),
    Sampling(temperature=1.0, min_p=1.0),
]


def slow_distribution(logits, sampling):
    """The probability of each token, token by token."""
    p = np.exp(logits.astype(np.float64) / sampling.temperature)
    order = sorted(range(len(p)), key=lambda i: -p[i])
    kept = order[: sampling.top_k] if sampling.top_k else order
    total = sum(p[i] for i in kept)
    chosen = []
    reached = 0.0
    for i in kept:
        if reached >= sampling.top_p:
            break
        if p[i] >= sampling.min_p * max(p):
            chosen.append(i)
        reached += p[i] / total
    want = np.zeros(len(p))
    for i in chosen:
        want[i] = p[i] / sum(p[j] for j in chosen)
    return want


def draw(logits, keys, rows, seen=None):
    """A token for each row, in one program."""
    program = SamplingProgram.of(rows, logits.shape[1])
    choose = jax.jit(sample_token, static_argnums=3)
    return np.asarray(choose(logits, keys, SamplingRows.of(rows), program, seen))


def distribution(logits, sampling):
    rows = [sampling] * len(logits)
    program = SamplingProgram.of(rows, logits.shape[1])
    weights, ids = jax.jit(candidate_tokens, static_argnums=2)(
        logits, SamplingRows.of(rows), program.n_candidates
    )
    got = np.zeros(logits.shape)
    np.put_along_axis(got, np.asarray(ids), np.asarray(jax.nn.softmax(weights)), axis=1)
    return got


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_candidates_are_the_distribution(sampling):
    want = [slow_distribution(row, sampling) for row in LOGITS]
    np.testing.assert_allclose(distribution(LOGITS, sampling), want, atol=1e-6)


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_candidates_are_those_of_transformers(sampling):
    torch = pytest.importorskip("torch", reason="the reference works on torch tensors")
    reference = pytest.importorskip("transformers", reason="the reference lives there")
    # In the order of `generate`, which leaves out those that change nothing.
    processors = [
        reference.RepetitionPenaltyLogitsProcessor(1.3),
        reference.TemperatureLogitsWarper(sampling.temperature),
    ]
    if sampling.top_k:
        processors.append(reference.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(reference.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(reference.MinPLogitsWarper(sampling.min_p))
    logits = np.random.default_rng(1).normal(0, 3, (4, 60)).astype(np.float32)
    seen_ids = np.random.default_rng(2).integers(0, 60, (4, 15))
    theirs = reference.LogitsProcessorList(processors)(torch.tensor(seen_ids), torch.tensor(logits))
    want = torch.softmax(theirs, -1).numpy()
    seen = np.zeros(logits.shape, bool)
    np.put_along_axis(seen, seen_ids, True, axis=1)
    penalized = np.asarray(penalize_seen(jnp.asarray(logits), jnp.asarray(seen), 1.3))
    np.testing.assert_allclose(distribution(penalized, sampling), want, atol=1e-6)


def test_a_penalty_changes_the_likeliest_token():
    logits = jnp.asarray([[2.0, 1.5, -1.0], [-1.0, -1.25, -3.0]])
    seen = jnp.asarray([[True, False, True], [True, False, False]])
    penalized = [[1.0, 1.5, -2.0], [-2.0, -1.25, -3.0]]
    np.testing.assert_array_equal(penalize_seen(logits, seen, 2.0), penalized)
    keys = jax.random.split(jax.random.key(1), 2)
    got = draw(logits, keys, [Sampling(repetition_penalty=2.0)] * 2, seen)
    np.testing.assert_array_equal(got, [1, 1])


def test_choices_follow_the_distribution():
    n = 20_000
    sampling = Sampling(temperature=1.0, top_k=6, top_p=0.9)
    keys = jax.random.split(jax.random.key(1), n)
    logits = np.broadcast_to(LOGITS[0], (n, 11))
    drawn = draw(logits, keys, [sampling] * n)
    counts = np.bincount(drawn, minlength=11)
    want = slow_distribution(LOGITS[0], sampling) * n
    assert (counts[want == 0] == 0).all()
    possible = want > 0
    chi_square = ((counts[possible] - want[possible]) ** 2 / want[possible]).sum()
    assert chi_square < 25  # At most five degrees of freedom: p is about 1e-4.


def test_temperature_zero_is_the_likeliest_token():
    keys = jax.random.split(jax.random.key(1), 3)
    got = draw(LOGITS, keys, [Sampling(temperature=0.0, top_k=3, top_p=0.5)] * 3)
    np.testing.assert_array_equal(got, LOGITS.argmax(axis=1))


@pytest.mark.parametrize("temperature", [1e-30, 1e-37, 1e-38, 1e-40, 1e-45, 1e-50, 5e-324])
@pytest.mark.parametrize("others", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}], ids=str)
def test_a_temperature_near_zero_is_the_likeliest_token(temperature, others):
    logits = np.concatenate([50 * LOGITS, LOGITS - 90])  # Several overflow; and all are negative.
    keys = jax.random.split(jax.random.key(1), len(logits))
    got = draw(logits, keys, [Sampling(temperature=temperature, **others)] * len(logits))
    np.testing.assert_array_equal(got, logits.argmax(axis=1))


def test_a_very_high_temperature_draws_every_token_alike():
    n = 11_000
    keys = jax.random.split(jax.random.key(4), n)
    logits = np.broadcast_to(LOGITS[0], (n, 11))
    for temperature in (1e30, 1e39, 1e308):
        counts = np.bincount(draw(logits, keys, [Sampling(temperature)] * n), minlength=11)
        chi_square = ((counts - n / 11) ** 2 / (n / 11)).sum()
        assert chi_square < 36  # Ten degrees of freedom: p is about 1e-4.


def test_a_row_draws_the_same_whatever_the_settings_of_the_others():
    """No other row changes which noise a token gets: not by sorting, nor by more candidates."""
    n = 200
    keys = jax.random.split(jax.random.key(2), n)
    logits = np.random.default_rng(3).normal(0, 1, (n, 37)).astype(np.float32)
    kinds = [
        Sampling(),
        Sampling(temperature=1.0),
        Sampling(temperature=0.8, min_p=0.02),
        Sampling(temperature=1.2, top_k=3),
        Sampling(temperature=1.0, top_k=9, top_p=0.9),
        Sampling(temperature=1.0, top_p=0.8),
    ]
    alone = np.stack([draw(logits, keys, [kind] * n) for kind in kinds])
    for present in (kinds, kinds[:4], kinds[3:5]):  # All 37 sorted; so with some that rank; 16.
        rows = [present[i % len(present)] for i in range(n)]
        together = draw(logits, keys, rows)
        expected = [alone[kinds.index(row), i] for i, row in enumerate(rows)]
        np.testing.assert_array_equal(together, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(temperature=-1.0),
        dict(temperature=float("nan")),
        dict(temperature=1.0, top_k=-1),
        dict(temperature=1.0, top_k=2**31),
        dict(temperature=1.0, top_p=0.0),
        dict(temperature=1.0, top_p=1.5),
        dict(temperature=1.0, min_p=1.1),
        dict(temperature=1.0, repetition_penalty=0.0),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"^{list(wrong)[-1]}: expected .*; got "):
        Sampling(**wrong)
