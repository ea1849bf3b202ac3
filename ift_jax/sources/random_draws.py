"""Stateless random draws: functions of a key, by hashlib alone, so the same everywhere."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of draws that is fixed by its key, e.g. `Draws(seed, task, index)`.

    Every 64 bytes of the stream are BLAKE2b(key, block number); a draw below `n` takes the
    remainder of what is left of them, at least 64 bits more than `n` has: its bias is < 2**-63.
    """

    def __init__(self, *key: str | int) -> None:
        self._key = "\x1f".join(map(str, key)).encode()
        self._block = self._state = self._bits = 0

    def below(self, n: int) -> int:
        """An integer in [0, n), for 0 < n < 2**64."""
        if self._bits < 128:
            digest = hashlib.blake2b(self._key, salt=self._block.to_bytes(16, "big")).digest()
            self._state, self._bits = int.from_bytes(digest, "big"), 512
            self._block += 1
        self._state, value = divmod(self._state, n)
        self._bits -= n.bit_length()
        return value

    def choice(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        """`k` different positions' options, in random order."""
        pool = list(options)
        return [pool.pop(self.below(len(pool))) for _ in range(k)]


def hash64(*key: str | int) -> int:
    """A stable 64-bit hash of a key."""
    joined = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")
