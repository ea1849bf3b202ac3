"""Stateless random draws: what is drawn is a function of a key, nothing else.

Built on hashlib alone, so that a draw is the same on every machine and for every
version of Python and numpy.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of draws that is fixed by its key, e.g. `Draws(seed, task, index)`.

    Every 64 bytes of the stream are BLAKE2b(key, block number); a draw below `n` takes the
    remainder of what is left of them, of which at least 64 bits more than `n` needs: the bias
    is below 2**-63.
    """

    def __init__(self, *key: str | int) -> None:
        self._key = "\x1f".join(map(str, key)).encode()
        self._block = 0
        self._state = 0
        self._bits = 0

    def below(self, n: int) -> int:
        """Returns an integer in [0, n), for 0 < n < 2**64."""
        if self._bits < 128:
            digest = hashlib.blake2b(self._key, salt=self._block.to_bytes(16, "big")).digest()
            self._state, self._bits = int.from_bytes(digest, "big"), 512
            self._block += 1
        self._state, value = divmod(self._state, n)
        self._bits -= n.bit_length()
        return value

    def choice(self, options: Sequence[T]) -> T:
        """Returns one of the options."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], k: int) -> list[T]:
        """Returns `k` different positions' options, in random order."""
        pool = list(options)
        return [pool.pop(self.below(len(pool))) for _ in range(k)]


def hash64(*key: str | int) -> int:
    """Returns a stable 64-bit hash of a key."""
    joined = "\x1f".join(map(str, key)).encode()
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")
