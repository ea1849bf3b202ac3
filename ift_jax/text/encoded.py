"""A training example: ids with loss weights."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from ift_jax.text.dropped import NOTHING_TRAINED, Dropped

# What is counted of examples, as a report names it.
DROPPED_THOUGHTS = "thoughts of earlier rounds dropped"
EMPTY_BLOCKS = "empty thinking blocks"
FURTHER_EXAMPLES = "further examples of a conversation"
MASKED_CALLS = "tool call tokens masked"
MASKED_THINKING = "thinking tokens masked"
REPEATED_TOKENS = "context tokens repeated"


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """One example, ready to be trained on.

    Attributes:
        tokens: int32[N], all of a decoder's tokens, or an encoder-decoder's targets with EOS.
        weights: float32[N], the loss weight of each token as a target.
        encoder_tokens: int32[M]; empty for a decoder.
        prompt_length: The number of a decoder's tokens before its last trained answer; 0 for an
            encoder-decoder.
        prefix_length: The number of tokens before the first trained one.
        references: What an answer is compared with, the trained one among them.
        truncated: The number of tokens that were cut from the prompt.
        control_strings: The number of control strings that the messages' own texts contain.
        choices: Answers to be ranked: each text, and the ids that would be trained with it.
        unwritten: The names of fields that the template left out.
        notes: Counts of what its policy did, by what they count.
        rejected_start: Of a pair, the number of tokens of its chosen side, which the rejected one
            follows; 0 if the example is no pair. The lengths above are those of the chosen side.
    """

    tokens: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]
    encoder_tokens: npt.NDArray[np.int32]
    prompt_length: int
    prefix_length: int
    references: tuple[str, ...]
    truncated: int
    control_strings: int
    choices: tuple[tuple[str, list[int]], ...] = ()
    unwritten: tuple[str, ...] = ()
    notes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    rejected_start: int = 0


def all_or_dropped(examples: Iterable[Encoded | Dropped]) -> list[Encoded] | Dropped:
    """Collect the examples of a record; if one of them is dropped, so is the record.

    One of which a policy leaves nothing to train is left out, unless it is the only one.
    """
    found = []
    for example in examples:
        if isinstance(example, Encoded):
            found.append(example)
        elif example != NOTHING_TRAINED:
            return example
    return found or NOTHING_TRAINED
