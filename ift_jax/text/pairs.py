"""Encoding pairs: a chosen and a rejected conversation become one example of two sequences.

The two stand one behind the other in the tokens of the example, so that it is packed, ordered and
counted as any other, and both are always in the same row of a batch. There they are segments of
their own (`ift_jax.data.batches`): neither sees the other.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from ift_jax.errors import UserError
from ift_jax.text.dropped import NOTHING_TRAINED, Dropped, too_long
from ift_jax.text.encoded import Encoded
from ift_jax.text.over_length import LengthLimits
from ift_jax.text.records import Record

IDENTICAL = Dropped("identical_pair")  # Nothing can be preferred.
SEVERAL_EXAMPLES = Dropped("several_examples_of_a_side")  # Such as one for each trained round.

Encode = Callable[[Record, LengthLimits], list[Encoded] | Dropped]


def encode_pair(record: Record, limits: LengthLimits, encode: Encode) -> list[Encoded] | Dropped:
    """Encode both sides of a record and join them, or drop both.

    A pair shares a row, so its two sequences together must fit into `data.max_length`. Under
    "truncate-prompt" both lose the same number of tokens, which is taken from the prompt.

    Args:
        record: A record with a rejected side.
        limits: The lengths of the run.
        encode: Encodes a record without a rejected side under some limits.

    Raises:
        UserError: As `encode`, or the pair is too long under "error".
    """
    sides = [
        dataclasses.replace(record, messages=messages, rejected=(), references=references)
        for messages, references in ((record.messages, record.references), (record.rejected, ()))
    ]
    unlimited = dataclasses.replace(limits, max_length=_UNLIMITED)
    made = _both(sides, [unlimited, unlimited], encode)
    if isinstance(made, Dropped):
        return made
    size = sum(len(example.tokens) for example in made)
    excess = size - limits.max_length
    if excess > 0:
        if limits.over_length == "error":
            raise UserError(
                f"{record.where}: the chosen and the rejected side have {size} tokens; expected at"
                f" most data.max_length = {limits.max_length} together"
            )
        if limits.over_length == "drop":
            return too_long("max_length", size)
        cut = -(-excess // 2)
        shorter = [dataclasses.replace(limits, max_length=len(e.tokens) - cut) for e in made]
        made = _both(sides, shorter, encode)
        if isinstance(made, Dropped):
            return too_long("max_length", size)
    chosen, rejected = made
    if np.array_equal(chosen.tokens, rejected.tokens):
        return IDENTICAL
    if not all(example.weights[1:].any() for example in made):  # Nothing predicts a first token.
        return NOTHING_TRAINED
    return [_joined(chosen, rejected)]


_UNLIMITED = 2**31 - 1


def _both(
    sides: list[Record], limits: list[LengthLimits], encode: Encode
) -> list[Encoded] | Dropped:
    made: list[Encoded] = []
    for side, of_side in zip(sides, limits, strict=True):
        examples = encode(side, of_side) if of_side.max_length > 0 else NOTHING_TRAINED
        if isinstance(examples, Dropped):
            return examples
        if len(examples) != 1:
            return SEVERAL_EXAMPLES
        made += examples
    return made


def _joined(chosen: Encoded, rejected: Encoded) -> Encoded:
    """Return one example of both: the chosen one's, with the rejected one behind it."""
    notes = {
        name: chosen.notes.get(name, 0) + rejected.notes.get(name, 0)
        for name in (*chosen.notes, *rejected.notes)
    }
    return dataclasses.replace(
        chosen,
        tokens=np.concatenate([chosen.tokens, rejected.tokens]),
        weights=np.concatenate([chosen.weights, rejected.weights]),
        rejected_start=len(chosen.tokens),
        truncated=chosen.truncated + rejected.truncated,
        control_strings=chosen.control_strings + rejected.control_strings,
        unwritten=tuple(dict.fromkeys((*chosen.unwritten, *rejected.unwritten))),
        notes=notes,
    )
