"""Loss weights of parts of an answer: those that `train_detail` lists by characters.

The answer's ids stay those of its whole text, which generation would give, too. A token is trained
if a character of it is in a trained range and none in an untrained one.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError
from ift_jax.text.records import Message, Record
from ift_jax.text.thought_blocks import leading_block
from ift_jax.text.token_characters import TokenCharacters
from ift_jax.text.tokenizers.base import Tokenizer


def mask_ranges(
    weights_N: npt.NDArray[np.float32],
    ids_N: npt.NDArray[np.int32],
    owners_N: npt.NDArray[np.int64],
    record: Record,
    tokenizer: Tokenizer,
) -> None:
    """Set to 0 the loss weights of what the ranges of messages leave out.

    Args:
        weights_N: float32[N], the loss weight of each token; it is changed.
        ids_N: int32[N], the tokens.
        owners_N: int64[N], the message whose answer each token is part of.
        record: The record.
        tokenizer: The tokenizer.

    Raises:
        UserError: As `range_mask`.
    """
    for i, message in enumerate(record.messages):
        own_N = owners_N == i
        if message.ranges and own_N.any():
            place = f"{record.where}: messages[{i}]"
            weights_N[own_N] *= range_mask(ids_N[own_N].tolist(), message, tokenizer, place)


def range_mask(
    ids: Sequence[int], message: Message, tokenizer: Tokenizer, place: str
) -> npt.NDArray[np.float32]:
    """Return float32[N]: 1 for each token of an answer that is trained, 0 for the others.

    What surrounds the content (a thought, the stop token) is trained if anything is.

    Args:
        ids: The answer's ids.
        message: The message, which has ranges.
        tokenizer: The tokenizer.
        place: The message's place, for the error.

    Raises:
        UserError: The tokenizer does not keep the text, so its characters have no tokens.
    """
    if not any(item.trained for item in message.ranges):
        return np.zeros(len(ids), np.float32)
    characters = TokenCharacters(ids, tokenizer)
    content = message.content.strip()
    # A thought may hold the words of the text that follows it.
    block = leading_block(characters.text, message.reasoning_content)
    after = block.end if block and message.reasoning_content else 0
    at = characters.text.find(content, after)
    if at < 0:
        raise UserError(
            f"{place}.train_detail: the tokenizer or the template changes the content, so its"
            " characters cannot be found among the tokens"
        )
    # Templates may trim the content.
    shift = at - (len(message.content) - len(message.content.lstrip()))
    mask = np.ones(len(ids), np.float32)
    mask[characters.holding(at, at + len(content))] = 0
    for trained in (True, False):
        for item in message.ranges:
            if item.trained == trained:
                begin, end = (min(max(edge + shift, at), at + len(content)) for edge in item[:2])
                mask[characters.holding(begin, end)] = trained
    return mask
