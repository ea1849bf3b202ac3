"""Masks and the attention core against loops over single pairs of tokens."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import Tokens, attention_mask
from ift_jax.models.attention.reference import dense_attention


def random_row(rng, length):
    """Segments of random lengths, then padding; each segment has a random prefix."""
    segment_ids, positions, prefix = np.zeros((3, length), np.int32)
    start, segment = 0, 1
    while start < length - 2:
        n = min(int(rng.integers(1, 6)), length - start)
        segment_ids[start : start + n] = segment
        positions[start : start + n] = np.arange(n)
        prefix[start : start + int(rng.integers(0, n + 1))] = 1
        start, segment = start + n, segment + 1
    return segment_ids, positions, prefix > 0


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("with_prefix", [True, False])
def test_the_attention_mask_is_the_rule_for_each_pair(causal, window, with_prefix):
    rng = np.random.default_rng(0)
    rows = [random_row(rng, 14) for _ in range(3)]
    segment_ids, positions, prefix = (np.stack(part) for part in zip(*rows, strict=True))
    tokens = Tokens(segment_ids, positions, prefix if with_prefix else None)
    got = attention_mask(tokens, tokens, causal=causal, window=window)
    want = np.zeros((3, 14, 14), bool)
    for b in range(3):
        for q in range(14):
            for k in range(14):
                if segment_ids[b, q] != segment_ids[b, k] or segment_ids[b, k] == 0:
                    continue
                behind = positions[b, q] - positions[b, k]
                if causal and behind < 0 and not (with_prefix and prefix[b, k]):
                    continue
                if window is not None and abs(behind) >= window:
                    continue
                want[b, q, k] = True
    np.testing.assert_array_equal(got, want)
    assert want.any() and not want.all()


def slow_attention(q, k, v, allowed, scale, softcap, bias):
    B, L, H, _ = q.shape
    group = H // k.shape[1]
    y = np.zeros(q.shape)
    for b in range(B):
        for h in range(H):
            for i in range(L):
                scores = {}
                for j in np.flatnonzero(allowed[b, i]):
                    score = float(q[b, i, h] @ k[b, h // group, j]) * scale
                    if softcap:
                        score = softcap * math.tanh(score / softcap)
                    scores[j] = math.exp(score + (0.0 if bias is None else bias[h, i, j]))
                for j, weight in scores.items():
                    y[b, i, h] += weight / sum(scores.values()) * v[b, h // group, j]
    return y.reshape(B, L, -1)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize("with_bias", [True, False])
def test_attention_is_the_formula(kv_heads, softcap, with_bias):
    rng = np.random.default_rng(1)
    B, L, S, H, K = 2, 4, 7, 6, 8
    q = rng.normal(size=(B, L, H, K)).astype(np.float32)
    k, v = rng.normal(size=(2, B, kv_heads, S, K)).astype(np.float32)
    allowed = rng.random((B, L, S)) < 0.6
    allowed[0, 1] = False  # A query without any key.
    bias = rng.normal(size=(H, L, S)).astype(np.float32) if with_bias else None
    got = dense_attention(q, KVPair(k, v), allowed, scale=0.4, softcap=softcap, bias_HxLxS=bias)
    want = slow_attention(q, k, v, allowed, 0.4, softcap, bias)
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert (np.asarray(got)[0, 1] == 0).all()


def test_a_query_without_keys_has_zero_finite_gradients():
    rng = np.random.default_rng(2)
    q = jnp.asarray(rng.normal(size=(1, 3, 2, 4)), jnp.float32)
    k, v = jnp.asarray(rng.normal(size=(2, 1, 2, 5, 4)), jnp.float32)
    allowed = np.ones((1, 3, 5), bool)
    allowed[0, 2] = False

    def total(q, k, v):
        return (dense_attention(q, KVPair(k, v), allowed, scale=1.0) ** 2).sum()

    gq, gk, gv = jax.grad(total, argnums=(0, 1, 2))(q, k, v)
    assert all(np.isfinite(g).all() for g in (gq, gk, gv))
    assert (gq[0, 2] == 0).all() and (gq[0, :2] != 0).any()

    def without_it(k, v):
        return (dense_attention(q[:, :2], KVPair(k, v), allowed[:, :2], scale=1.0) ** 2).sum()

    for g, want in zip((gk, gv), jax.grad(without_it, argnums=(0, 1))(k, v), strict=True):
        np.testing.assert_allclose(g, want, rtol=1e-6, atol=1e-6)


def test_scores_of_bfloat16_are_accumulated_in_float32():
    # 256 + 1: bfloat16 has 8 bits, so a bfloat16 sum of the products would lose the 1.
    q = jnp.full((1, 1, 1, 257), 1.0, jnp.bfloat16)
    k = jnp.ones((1, 1, 2, 257), jnp.bfloat16).at[0, 0, 1, 256].set(0.0)
    v = jnp.stack([jnp.zeros((1, 1, 257)), jnp.ones((1, 1, 257))], 2).astype(jnp.bfloat16)
    y = dense_attention(q, KVPair(k, v), np.ones((1, 1, 2), bool), scale=1.0)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), 1 / (1 + math.e), rtol=0.01)
