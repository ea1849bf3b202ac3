"""Attention by tiles: which tiles are visited, and sinks. The rest is in test_implementations."""

import jax
import numpy as np
import pytest

from ift_jax.models.attention import tiled
from ift_jax.models.attention.attention import attention
from ift_jax.models.attention.kv import KVPair
from ift_jax.models.attention.mask import AttentionMask, KeySpan, Tokens, attention_mask
from ift_jax.models.attention.tiles import visited_blocks
from tests.models.attention.run_attention import random_inputs

BLOCK, LENGTH = 8, 64


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(tiled, "BLOCK", BLOCK)


def packed(*segments):
    """Two equal rows of segments of these lengths, then padding."""
    ids = np.repeat(np.arange(len(segments)) + 1, segments)
    positions = np.concatenate([np.arange(n) for n in segments])
    rest = LENGTH - len(ids)
    row = (np.pad(part, (0, rest)).astype(np.int32) for part in (ids, positions))
    return Tokens(*(np.stack([part, part]) for part in row))


@pytest.mark.parametrize(
    ("tokens", "options"),
    [
        (packed(64), {}),
        (packed(13, 3, 30), {}),  # Borders inside blocks, and blocks of padding.
        (packed(16, 24, 24), {}),
        (packed(60), dict(window=5)),
        (packed(20, 40), dict(causal=False)),
    ],
    ids=str,
)
def test_exactly_the_tiles_with_a_visible_pair_are_visited(tokens, options):
    options = {"causal": True, **options}
    mask = AttentionMask.create(tokens, tokens, implementation="tiled", **options)
    spans = KeySpan(*(span.reshape(-1, BLOCK) for span in mask.key_span))
    visits = visited_blocks(spans, BLOCK)
    allowed = np.asarray(attention_mask(tokens, tokens, **options))
    n_blocks = LENGTH // BLOCK
    tiles = allowed.reshape(2, n_blocks, BLOCK, n_blocks, BLOCK).any(axis=(2, 4))
    number = np.arange(n_blocks)
    begin, end = (np.asarray(part).reshape(2, n_blocks, 1) for part in visits)
    np.testing.assert_array_equal((begin <= number) & (number < end), tiles)


def run(inputs, tokens, implementation, sinks=None):
    """The output, and the gradients of queries, keys, values and sinks."""
    q, k, v, dy = inputs

    @jax.jit
    def program(q, k, v, sinks):
        mask = AttentionMask.create(tokens, tokens, causal=True, implementation=implementation)

        def call(q, k, v, sinks):
            return attention(q, KVPair(k, v), mask, scale=0.3, sinks_H=sinks)

        y, pull = jax.vjp(call, q, k, v, sinks)
        return y, *pull(dy)

    return jax.tree.map(np.asarray, program(q, k, v, sinks))


def test_tiles_without_a_visible_pair_are_not_computed():
    """Forward and backward: values that no query of a tile may see would make it NaN."""
    tokens = packed(16, 24, 24)
    q, k, v, dy = random_inputs(0, 2, LENGTH, LENGTH)
    wanted = run((q, k, v, dy), tokens, "tiled")
    second = (tokens.segment_ids_BxL == 2)[:, None, :, None]
    poisoned_k, poisoned_v = (np.where(second, np.nan, part).astype(np.float32) for part in (k, v))
    poisoned = (q, poisoned_k, poisoned_v, dy)
    others = tokens.segment_ids_BxL != 2
    y, dq, dk, dv, _ = run(poisoned, tokens, "tiled")
    np.testing.assert_array_equal(y[others], wanted[0][others])
    np.testing.assert_array_equal(dq[others], wanted[1][others])
    for got, want in ((dk, wanted[2]), (dv, wanted[3])):
        np.testing.assert_array_equal(got.swapaxes(1, 2)[others], want.swapaxes(1, 2)[others])
    # The comparison can fail: where all tiles are computed, NaN is everywhere.
    assert np.isnan(run(poisoned, tokens, "xla")[0][others]).any()


@pytest.mark.parametrize("implementation", ["blockwise", "tiled"])
def test_sinks(implementation):
    """Low and high ones, with padding; their gradient too."""
    tokens = packed(13, 3, 30)
    inputs = random_inputs(1, 2, LENGTH, LENGTH)
    sinks = np.array([-3.0, 0.5, 2.0, 90.0], np.float32)
    for got, want in zip(
        run(inputs, tokens, implementation, sinks), run(inputs, tokens, "xla", sinks), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
