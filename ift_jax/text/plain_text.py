"""The example of a plain text, which no chat template writes: all its tokens are trained.

Control strings in it are control tokens, because such texts are mostly what a template wrote.
"""

from collections.abc import Collection, Sequence

import numpy as np

from ift_jax.text.encode_chunks import join_pieces
from ift_jax.text.encoded import Encoded
from ift_jax.text.records import Record
from ift_jax.text.tokenizers.base import Tokenizer


def whole_text(
    pieces: Sequence[list[int]],
    tokenizer: Tokenizer,
    empty_prompt: list[int],
    stop_ids: Collection[int],
) -> list[list[int]]:
    """Return a text's pieces of ids with a beginning and an end; none for a text without any.

    BOS (EOS where there is none) comes first, so that the first token can be predicted. EOS comes
    last, unless the text ends in a token that stops generation.
    """
    if not pieces:
        return []
    front = [] if pieces[0] == [tokenizer.bos_id] else [empty_prompt]
    end = [] if pieces[-1][-1] in stop_ids else [[tokenizer.eos_id]]
    return [*front, *pieces, *end]


def plain_text_example(pieces: Sequence[list[int]], record: Record) -> Encoded:
    """Return the example of a text: everything but its first id is trained."""
    ids = join_pieces(pieces)
    (message,) = record.messages
    weight = record.weight * (1.0 if message.weight is None else message.weight)
    weights = np.full(ids.shape, weight, np.float32)
    weights[0] = 0
    return Encoded(
        tokens=ids,
        weights=weights,
        encoder_tokens=np.zeros(0, np.int32),
        prompt_length=1,
        prefix_length=1,
        references=(message.content,),
        truncated=0,
        control_strings=0,
    )
