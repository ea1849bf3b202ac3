"""A training example: ids with loss weights."""

import dataclasses

import numpy as np
import numpy.typing as npt


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
