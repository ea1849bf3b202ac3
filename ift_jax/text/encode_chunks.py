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
from ift_jax.text.control_strings import control_pattern, unbroken_parts
from ift_jax.text.tokenizers.base import Tokenizer

_CACHED_CHUNKS = 512  # Enough for headers, and for the answers of one long conversation.
_KEEPS_SPACE = (False, False)


class Tokens(NamedTuple):
    """The token ids of a conversation, in pieces."""

    pieces: list[list[int]]
    spans: list[Span]  # The span that each piece belongs to.
    control_strings: int  # How many the record's own texts contain.

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
        pieces: list[list[int]] = []
        span_of_piece: list[Span] = []
        place = "start"
        for span in spans:
            # Texts and control strings in turn.
            chunks = self._controls.split(span.text) if self._controls else [span.text]
            if strips:
                chunks = _strip_beside_controls(chunks, strips)
            for i, chunk in enumerate(chunks):
                if not chunk:
                    continue
                if i % 2:
                    pieces.append([special[chunk]])
                    place = "control"
                else:
                    pieces.append(encode(chunk, place))
                    place = "text"
                span_of_piece.append(span)
        return Tokens(pieces, span_of_piece, chat.control_strings)

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


def _strip_beside_controls(
    chunks: Sequence[str], strips: Mapping[str, tuple[bool, bool]]
) -> list[str]:
    """Remove the white space that control tokens swallow from the texts beside them.

    Args:
        chunks: Texts and control strings in turn; a text comes first and last.
        strips: See `Tokenizer.strips`.
    """
    stripped = list(chunks)
    for i in range(0, len(chunks), 2):
        before = chunks[i - 1] if i > 0 else ""
        after = chunks[i + 1] if i + 1 < len(chunks) else ""
        if strips.get(before, _KEEPS_SPACE)[1]:
            stripped[i] = stripped[i].lstrip()
        if strips.get(after, _KEEPS_SPACE)[0]:
            stripped[i] = stripped[i].rstrip()
    return stripped
