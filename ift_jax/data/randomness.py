"""Stateless randomness: numbers and permutations as pure functions of what names them; hashes.

Orders must survive library versions and be the same on every host, so only two primitives are
used: SHA-256, and the raw 64-bit words of `np.random.Philox` (bit generators are stable across
NumPy versions; the methods of `Generator` are not).
"""

import hashlib
import json
from typing import Any

import numpy as np


def digest(value: Any) -> str:
    """SHA-256, in hex, of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def stable_hash(*parts: str | int, bits: int = 64) -> int:
    """An integer in [0, 2**bits), bits <= 256, that depends on `parts` alone."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest, "big") >> (256 - bits)


def permutation(n: int, *parts: str | int) -> np.ndarray:
    """A permutation of range(n) by `n` and `parts` alone; int32[n], int64 from 2**31 on."""
    words = np.random.Philox(key=stable_hash(*parts, bits=128)).random_raw(n)
    order = np.argsort(words, kind="stable")
    return order.astype(np.int32) if n < 2**31 else order
