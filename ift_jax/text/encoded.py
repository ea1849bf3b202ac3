"""What a format makes of a record: ids and the loss weight of each, or a refusal."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Refused(Exception):
    """An example that is left out: "too_long", "nothing_trained" or "template_unstable"."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """One example, ready to be trained on."""

    tokens: npt.NDArray[np.int32]  # N: all of a decoder's; an encoder-decoder's targets with EOS.
    weights: npt.NDArray[np.float32]  # N: the loss weight of each token as a target.
    encoder_tokens: npt.NDArray[np.int32]  # M; empty for a decoder.
    prompt_length: int  # A decoder's `tokens` that prompt the last trained answer; or 0.
    prefix_length: int  # Leading tokens before the first trained one.
    references: tuple[str, ...]  # What an answer is compared with, the trained one among them.
    truncated: int  # Prompt tokens that were cut off.
    control_strings: int  # Found inside the messages' text.
    choices: tuple[tuple[str, list[int]], ...] = ()  # To be ranked: texts, and ids with the stop.


def flat(pieces: Sequence[list[int]]) -> npt.NDArray[np.int32]:
    """Pieces of ids, joined: int32 N."""
    return np.fromiter(itertools.chain.from_iterable(pieces), np.int32, sum(map(len, pieces)))


def shares(lengths: Sequence[int], excess: int) -> list[int]:
    """What is left of each length when the longest give up `excess` in all."""
    left = sum(lengths) - excess
    shares = [0] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for done, i in enumerate(order):  # From the shortest: none is left more than an equal share.
        shares[i] = min(lengths[i], left // (len(order) - done))
        left -= shares[i]
    return shares
