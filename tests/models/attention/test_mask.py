"""The attention mask against its rule, pair by pair."""

import numpy as np
import pytest

from ift_jax.models.attention.mask import attention_mask
from tests.models.attention.rows import random_tokens


def may_attend(tokens, row, query, key, *, causal, window):
    """The rule for one pair of positions in a row."""
    segment = tokens.segment_ids_BxL[row]
    if segment[query] != segment[key] or segment[key] == 0:
        return False
    distance = tokens.positions_BxL[row, query] - tokens.positions_BxL[row, key]
    in_prefix = tokens.prefix_BxL is not None and tokens.prefix_BxL[row, key]
    if causal and distance < 0 and not in_prefix:
        return False
    return window is None or abs(distance) < window


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("with_prefix", [True, False])
def test_the_mask_is_the_rule_for_each_pair(causal, window, with_prefix):
    tokens = random_tokens(
        np.random.default_rng(0), 3, 14, max_segment=6, padding=2, with_prefix=with_prefix
    )
    got = attention_mask(tokens, tokens, causal=causal, window=window)
    want = np.zeros((3, 14, 14), bool)
    for row, query, key in np.ndindex(*want.shape):
        want[row, query, key] = may_attend(tokens, row, query, key, causal=causal, window=window)
    np.testing.assert_array_equal(got, want)
    assert want.any() and not want.all()
