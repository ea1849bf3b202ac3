"""The loss weight of each token of a decoder's example, from those of the messages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ift_jax.text.encode_chunks import Tokens
from ift_jax.text.part_weights import PartWeights
from ift_jax.text.policies import Policy
from ift_jax.text.range_weights import mask_ranges
from ift_jax.text.records import Record


class TokenWeights(NamedTuple):
    """The loss weights of an example.

    Attributes:
        weights_N: float32[N], the weight of each token.
        turn: The last message that is trained; None if nothing is.
        prompt_length: The number of tokens before it.
        prefix_length: The number of tokens before the first trained turn. What is masked inside of
            a turn is generated all the same, and so no prefix.
        notes: Counts of what a policy masked.
    """

    weights_N: npt.NDArray[np.float32]
    turn: int | None
    prompt_length: int
    prefix_length: int
    notes: Counter[str]


def token_weights(
    ids_N: npt.NDArray[np.int32],
    tokens: Tokens,
    record: Record,
    weights: Sequence[float],
    other_turns: Mapping[int, slice],
    policy: Policy,
    part_weights: PartWeights,
) -> TokenWeights:
    """Return the loss weight of each token.

    A token has the weight of the message whose answer it is part of, 0 if there is none. What the
    ranges of messages and the policy mask has 0.

    Args:
        ids_N: int32[N], the tokens.
        tokens: The same in pieces, with their spans.
        record: The conversation.
        weights: The loss weight of each message.
        other_turns: The tokens of trained turns that are not an assistant's.
        policy: The policy of the conversation.
        part_weights: Applies it to parts of answers.
    """
    lengths = [len(piece) for piece in tokens.pieces]
    owners = [-1 if span.message is None else span.message for span in tokens.spans]
    of_pieces = [0.0 if owner < 0 else weights[owner] for owner in owners]
    weights_N = np.repeat(np.array(of_pieces, np.float32), lengths)
    notes: Counter[str] = Counter()
    has_ranges = any(message.ranges for message in record.messages)
    if not other_turns and not has_ranges and not policy.concerns_parts:  # Nearly all.
        trained = [k for k, weight in enumerate(of_pieces) if weight and lengths[k]]
        if not trained:
            return TokenWeights(weights_N, None, 0, 0, notes)
        turn = owners[trained[-1]]
        before = sum(lengths[: owners.index(turn)])
        return TokenWeights(weights_N, turn, before, sum(lengths[: trained[0]]), notes)
    owners_N = np.repeat(np.array(owners, np.int64), lengths)
    for turn, own in other_turns.items():
        owners_N[own] = turn
        weights_N[own] = weights[turn]
    weights_N[:1] = 0  # Nothing predicts the first token of a row.
    prefix_length = int((weights_N > 0).argmax())
    notes = part_weights.apply(weights_N, ids_N, owners_N, record, policy)
    mask_ranges(weights_N, ids_N, owners_N, record, part_weights.tokenizer)
    if not weights_N.any():
        return TokenWeights(weights_N, None, 0, 0, notes)
    turn = int(owners_N[np.flatnonzero(weights_N)[-1]])
    return TokenWeights(weights_N, turn, int((owners_N == turn).argmax()), prefix_length, notes)
