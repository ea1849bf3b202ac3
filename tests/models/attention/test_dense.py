"""Dense attention, the reference of the others, against loops over single pairs of tokens."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.reference import dense_attention


def slow_attention(q, k, v, allowed, scale, softcap, bias):
    B, L, H, _ = q.shape
    group = H // k.shape[1]
    y = np.zeros(q.shape)
    for b, h, i in np.ndindex(B, H, L):
        weights = {}
        for j in np.flatnonzero(allowed[b, i]):
            score = float(q[b, i, h] @ k[b, h // group, j]) * scale
            if softcap:
                score = softcap * math.tanh(score / softcap)
            weights[j] = math.exp(score + (0.0 if bias is None else bias[h, i, j]))
        for j, weight in weights.items():
            y[b, i, h] += weight / sum(weights.values()) * v[b, h // group, j]
    return y.reshape(B, L, -1)


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_the_formula(kv_heads, softcap, with_bias):
    rng = np.random.default_rng(1)
    B, L, S, H, K = 2, 4, 7, 6, 8
    q = rng.normal(size=(B, L, H, K)).astype(np.float32)
    k, v = rng.normal(size=(2, B, kv_heads, S, K)).astype(np.float32)
    allowed = rng.random((B, L, S)) < 0.6
    allowed[0, 1] = False  # A query without any key.
    bias = rng.normal(size=(H, L, S)).astype(np.float32) if with_bias else None

    @jax.jit
    def attend(q, k, v, allowed, bias):
        return dense_attention(
            q, KVPair(k, v), allowed, scale=0.4, softcap=softcap, bias_HxLxS=bias
        )

    got = np.asarray(attend(q, k, v, allowed, bias))
    want = slow_attention(q, k, v, allowed, 0.4, softcap, bias)
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert (got[0, 1] == 0).all()


def test_a_query_without_keys_has_zero_finite_gradients():
    rng = np.random.default_rng(2)
    q = rng.normal(size=(1, 3, 2, 4)).astype(np.float32)
    k, v = rng.normal(size=(2, 1, 2, 5, 4)).astype(np.float32)
    allowed = np.ones((1, 3, 5), bool)
    allowed[0, 2] = False

    def total(q, k, v, allowed):
        return (dense_attention(q, KVPair(k, v), allowed, scale=1.0) ** 2).sum()

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    dq, *dkv = map(np.asarray, gradient(q, k, v, allowed))
    assert all(np.isfinite(leaf).all() for leaf in (dq, *dkv))
    assert (dq[0, 2] == 0).all() and (dq[0, :2] != 0).any()
    _, *dkv_without_it = gradient(q[:, :2], k, v, allowed[:, :2])
    for got, want in zip(dkv, dkv_without_it, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_scores_of_bfloat16_are_accumulated_in_float32():
    # 256 + 1: bfloat16 has 8 bits, so a bfloat16 sum of the products would lose the 1.
    q = np.ones((1, 1, 1, 257), jnp.bfloat16)
    k = np.ones((1, 1, 2, 257), jnp.bfloat16)
    k[0, 0, 1, 256] = 0
    v = np.stack([np.zeros((1, 1, 257)), np.ones((1, 1, 257))], 2).astype(jnp.bfloat16)
    y = dense_attention(q, KVPair(k, v), np.ones((1, 1, 2), bool), scale=1.0)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), 1 / (1 + math.e), rtol=0.01)
