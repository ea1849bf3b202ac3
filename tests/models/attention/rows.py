"""Random packed rows for the tests of attention."""

import numpy as np

from ift_jax.models.attention.mask import Tokens


def random_row(rng, length, *, max_segment, padding):
    """Segments of random lengths, each with a random prefix, then at least `padding` positions.

    Returns:
        Segment ids, positions (int32) and prefix (bool).
    """
    segment_ids, positions, prefix = np.zeros((3, length), np.int32)
    start, segment = 0, 1
    while start < length - padding:
        n = min(int(rng.integers(1, max_segment)), length - padding - start)
        segment_ids[start : start + n] = segment
        positions[start : start + n] = np.arange(n)
        prefix[start : start + int(rng.integers(0, n + 1))] = 1
        start, segment = start + n, segment + 1
    return segment_ids, positions, prefix > 0


def random_tokens(rng, n_rows, length, *, max_segment, padding, with_prefix):
    """Packed rows as attention knows them."""
    rows = [
        random_row(rng, length, max_segment=max_segment, padding=padding) for _ in range(n_rows)
    ]
    segment_ids, positions, prefix = (np.stack(part) for part in zip(*rows, strict=True))
    return Tokens(segment_ids, positions, prefix if with_prefix else None)
