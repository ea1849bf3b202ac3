"""Encoding a rendered conversation as `transformers` does, but with separate answers.

Control tokens split a text into chunks, and each chunk is encoded as a whole. A chunk is also split
where an answer begins or ends, and inside a control string that a user typed.
"""

import array
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ift_jax.text.chat_templates.render import Chat, Span
from ift_jax.text.control_strings import (
    WHITE_SPACE,
    control_pattern,
    strip_beside_controls,
    unbroken_parts,
)
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.unwritten import Unwritten

_CACHED_CHUNKS = 512  # Enough for headers, and for the answers of one long conversation.


class Tokens(NamedTuple):
    """The token ids of a conversation, in pieces."""

    pieces: list[list[int]]
    spans: list[Span]  # The span that each piece belongs to.
    control_strings: int  # How many the record's own texts contain.
    unwritten: frozenset[Unwritten] = frozenset()  # Texts that the template left out.

    @property
    def size(self) -> int:
        """The number of tokens."""
        return sum(map(len, self.pieces))


def join_pieces(pieces: Sequence[list[int]]) -> npt.NDArray[np.int32]:
    """Join pieces of ids: int32[N]."""
    ids = array.array("i")  # Takes lists in a third of NumPy's time.
    for piece in pieces:
        ids.fromlist(piece)
    return np.array(ids, np.int32)


class ChunkEncoder:
    """Encodes rendered conversations with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._controls = control_pattern(tokenizer.special_tokens)
        self._encode_cached = functools.lru_cache(_CACHED_CHUNKS)(self._encode_chunk)

    def encode(self, chat: Chat, spans: Sequence[Span]) -> Tokens:
        """Encode the spans of a conversation, chunk by chunk; an empty span has no piece."""
        special = self._tokenizer.special_tokens
        strips = self._tokenizer.strips
        encode: Callable[[str, str], list[int]] = self._encode_cached
        if chat.restore:
            encode = functools.partial(self._encode_chunk, restore=chat.restore)
        if strips:
            spans = self._without_swallowed_space(spans, strips)
        pieces: list[list[int]] = []
        span_of_piece: list[Span] = []
        place = "start"
        for span in spans:
            # Texts and control strings in turn.
            chunks = self._controls.split(span.text) if self._controls else [span.text]
            for i, chunk in enumerate(chunks):
                if not chunk:
                    continue
                if i % 2:
                    pieces.append([special[chunk]])
                    place = self._tokenizer.place_after(chunk)
                else:
                    pieces.append(encode(chunk, place))
                    place = "text"
                span_of_piece.append(span)
        return Tokens(pieces, span_of_piece, chat.control_strings)

    def _without_swallowed_space(
        self, spans: Sequence[Span], strips: Mapping[str, tuple[bool, bool]]
    ) -> list[Span]:
        """Remove the white space that control tokens swallow, also across the edges of spans.

        Only the end of a prompt keeps white space before an answer that begins with a token which
        would swallow it: the prompt of a generated answer has it.
        """
        result: list[Span] = []
        swallows = False  # Whether the last token swallows what comes next.
        for span in spans:
            chunks = self._controls.split(span.text) if self._controls else [span.text]
            chunks = strip_beside_controls(chunks, strips)
            if swallows:
                chunks[0] = chunks[0].lstrip(WHITE_SPACE)
            if len(chunks) > 1 and not chunks[0] and strips.get(chunks[1], (False,))[0]:
                if result and result[-1].is_answer:
                    result[-1] = result[-1]._replace(text=result[-1].text.rstrip(WHITE_SPACE))
            if chunks[-1]:
                swallows = False
            elif len(chunks) > 1:
                swallows = strips.get(chunks[-2], (False, False))[1]
            result.append(span._replace(text="".join(chunks)))
        return result

    def _encode_chunk(
        self, chunk: str, place: str, restore: Mapping[int, str] | None = None
    ) -> list[int]:
        """Encode text between control tokens; the parts of a broken control string are separate.

        Args:
            chunk: The text.
            place: Where it stands; see `Tokenizer.encode`.
            restore: A table for `str.translate` that undoes the stand-ins for marks.
        """
        parts = unbroken_parts(chunk)
        if len(parts) == 1 and restore is None:
            return self._tokenizer.encode(chunk, place)
        ids: list[int] = []
        for part in filter(None, parts):
            if restore:
                part = part.translate(restore)
            ids += self._tokenizer.encode(part, place)
            place = "text"
        return ids
