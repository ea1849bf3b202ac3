"""Stateless randomness: numbers, choices and permutations as pure functions of what names them.

An order must survive library versions and be the same on every host, so only hashes of `hashlib`
and the raw 64-bit words of `np.random.Philox` are used. (Bit generators are stable across NumPy
versions; the methods of `Generator` are not.) The results are pinned in tests: a change to any
function here would change the order of every run and the text of every drawn prompt.

There are two families, because each has fixed results that must not change: `Draws` and `hash64`
name what an example looks like, `stable_hash` and `permutation` in which order examples come.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK_BITS = 512  # Bits of one BLAKE2b digest.
_FEWEST_BITS = 128  # With fewer bits left, a draw starts the next block.


class Draws:
    """A stream of random draws that is fixed by its key, such as `Draws(seed, task, index)`.

    Every 64 bytes of the stream are BLAKE2b(key, block number). A draw below `n` is the remainder
    of the bits that are left, of which there are at least 64 more than `n` has, so its bias is
    below 2**-63.

    Args:
        *key: Strings and integers that name the stream.
    """

    def __init__(self, *key: str | int) -> None:
        self._key = _joined(key)
        self._block = 0
        self._state = 0
        self._bits = 0

    def below(self, n: int) -> int:
        """Return an integer in [0, n), for 0 < n < 2**64."""
        if self._bits < _FEWEST_BITS:
            salt = self._block.to_bytes(16, "big")
            block = hashlib.blake2b(self._key, salt=salt).digest()
            self._state = int.from_bytes(block, "big")
            self._bits = _BLOCK_BITS
            self._block += 1
        self._state, value = divmod(self._state, n)
        self._bits -= n.bit_length()
        return value

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        """Return the options at `k` different positions, in random order."""
        pool = list(options)
        return [pool.pop(self.below(len(pool))) for _ in range(k)]


def hash64(*key: str | int) -> int:
    """Return a stable 64-bit hash of a key, such as the one that decides an example's split."""
    return int.from_bytes(hashlib.blake2b(_joined(key), digest_size=8).digest(), "big")


def _joined(key: Sequence[str | int]) -> bytes:
    return "\x1f".join(map(str, key)).encode()


def stable_hash(*parts: str | int, bits: int = 64) -> int:
    """Return an integer in [0, 2**bits), for bits <= 256, that depends on `parts` alone."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest, "big") >> (256 - bits)


def permutation(n: int, *parts: str | int) -> np.ndarray:
    """Return a permutation of range(n) that depends on `n` and `parts` alone.

    Returns:
        int32[n], or int64[n] from n = 2**31 on.
    """
    words = np.random.Philox(key=stable_hash(*parts, bits=128)).random_raw(n)
    order = np.argsort(words, kind="stable")
    return order.astype(np.int32) if n < 2**31 else order
