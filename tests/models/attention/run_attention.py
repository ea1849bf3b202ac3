"""Runs an implementation of attention on random packed rows, and the formula in NumPy.

On CPU the Pallas kernels of splash and triton are interpreted: the same programs, block by block.
Each program is compiled once, whatever number of tests call it.
"""

import functools

import jax
import numpy as np

from ift_jax.models.attention.attention import attention
from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import AttentionMask, Tokens, attention_mask
from tests.models.attention.rows import random_tokens

ROWS, LENGTH, HEADS, HEAD_DIM = 2, 300, 4, 8
SCALE = 0.3


def packed_rows(seed, *, with_prefix=False, length=LENGTH):
    """Rows of several segments, then padding; the last row is nothing but padding."""
    rng = np.random.default_rng(seed)
    tokens = random_tokens(
        rng, ROWS, length, max_segment=length // 2, padding=25, with_prefix=with_prefix
    )
    assert tokens.segment_ids_BxL[0].max() > 2
    return Tokens(*(None if part is None else _clear_last_row(part) for part in tokens))


def _clear_last_row(part):
    return np.concatenate([part[:-1], np.zeros_like(part[-1:])])


def random_inputs(seed, kv_heads, n_queries=LENGTH, n_keys=LENGTH, head_dim=HEAD_DIM):
    """Queries, keys, values, and the gradient of the output."""
    rng = np.random.default_rng(seed)
    q, dy = rng.normal(size=(2, ROWS, n_queries, HEADS, head_dim)).astype(np.float32)
    k, v = rng.normal(size=(2, ROWS, kv_heads, n_keys, head_dim)).astype(np.float32)
    return q, k, v, dy.reshape(ROWS, n_queries, -1)


def output_and_gradients(
    implementation, inputs, queries, keys, *, causal=True, window=None, softcap=0.0, bias_HxW=None
):
    """The output, and the gradients of queries, keys, values and, if there is one, the bias."""
    program = _program(implementation, causal, window, softcap)
    return jax.tree.map(np.asarray, program(*inputs, queries, keys, bias_HxW))


@functools.cache
def _program(implementation, causal, window, softcap):
    @jax.jit
    def run(q, k, v, dy, queries, keys, bias_HxW):
        def call(q, k, v, bias_HxW):
            mask = AttentionMask.create(
                queries,
                keys,
                causal=causal,
                window=window,
                bias_HxW=bias_HxW,
                implementation=implementation,
            )
            assert mask.implementation == implementation
            return attention(q, KVPair(k, v), mask, scale=SCALE, softcap=softcap)

        y, pull = jax.vjp(call, q, k, v, bias_HxW)
        dq, dk, dv, dbias = pull(dy)
        return y, [dq, dk, dv] if bias_HxW is None else [dq, dk, dv, dbias]

    return run


def numpy_output(inputs, queries, keys, *, causal=True, window=None, softcap=0.0):
    """The formula in float64, query by query."""
    q, k, v, _ = inputs
    allowed = np.asarray(attention_mask(queries, keys, causal=causal, window=window))
    y = np.zeros(q.shape)
    group = q.shape[2] // k.shape[1]
    for b, i, h in np.ndindex(*q.shape[:3]):
        at = np.flatnonzero(allowed[b, i])
        if at.size:
            scores = k[b, h // group, at].astype(np.float64) @ q[b, i, h] * SCALE
            scores = softcap * np.tanh(scores / softcap) if softcap else scores
            weights = np.exp(scores - scores.max())
            y[b, i, h] = weights / weights.sum() @ v[b, h // group, at]
    return y.reshape(*q.shape[:2], -1)
