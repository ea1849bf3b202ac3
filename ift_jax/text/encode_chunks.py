"""Chunks: the ids of a rendered text, with answers apart.

Control tokens cut the text into chunks, and each chunk is encoded as a whole; it is cut as well
where an answer begins or ends, and inside a control string that a user typed.
"""

import array
import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.render import Chat, Marked
from ift_jax.text.chat_templates.sandbox import CLOSE, OPEN
from ift_jax.text.tokenizers.base import BREAK, Tokenizer, control_pattern

_MARKS = re.compile(f"([{OPEN}{CLOSE}])")
_CACHED = 512  # Chunks whose ids are kept: headers, and the answers of one long conversation.
_NONE = (False, False)


class Tokens(NamedTuple):
    """Ids in pieces; of each piece the message that it is the answer of; -1: none, -2: untold."""

    pieces: list[list[int]]
    turns: list[int]
    controls: int

    @property
    def size(self) -> int:
        return sum(map(len, self.pieces))


def flat(pieces: Sequence[list[int]]) -> npt.NDArray[np.int32]:
    """Pieces of ids, joined: int32 N."""
    ids = array.array("i")  # Takes a list in a third of NumPy's time.
    for piece in pieces:
        ids.fromlist(piece)
    return np.array(ids, np.int32)


class ChunkEncoder:
    """Encodes rendered texts with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._controls = control_pattern(tokenizer.special_tokens)
        self._cached = functools.lru_cache(_CACHED)(self._ids)

    def encode(self, chat: Chat, marked: Marked) -> Tokens:
        """The ids of a rendered text, chunk by chunk."""
        pieces: list[list[int]] = []
        turns: list[int] = []
        blocks = iter(marked.turns)
        special, strips = self._tokenizer.special_tokens, self._tokenizer.strips
        ids = functools.partial(self._ids, restore=chat.restore) if chat.restore else self._cached
        place, turn, inside = "start", -1, False
        for part in _MARKS.split(marked.text):
            if part in (OPEN, CLOSE):
                if inside == (part == OPEN):
                    raise UserError(f"{chat.where}: the template nests or breaks its generation")
                inside = not inside
                turn = next(blocks, -2) if inside else -1
                continue
            chunks = self._controls.split(part) if self._controls else [part]
            if strips:
                chunks = _stripped(chunks, strips)
            for i, chunk in enumerate(chunks):
                if not chunk:
                    continue
                if i % 2:
                    pieces.append([special[chunk]])
                    place = "control"
                else:
                    pieces.append(ids(chunk, place))
                    place = "text"
                turns.append(turn)
        return Tokens(pieces, turns, chat.controls)

    def _ids(self, chunk: str, place: str, restore: Mapping[int, str] | None = None) -> list[int]:
        """The ids of text between control tokens; what was broken is encoded in parts."""
        if restore is None and BREAK not in chunk:
            return self._tokenizer.encode(chunk, place)
        ids = []
        for part in filter(None, chunk.split(BREAK)):
            ids += self._tokenizer.encode(part.translate(restore) if restore else part, place)
            place = "text"
        return ids


def _stripped(chunks: Sequence[str], strips: Mapping[str, tuple[bool, bool]]) -> list[str]:
    """Texts, every other one a control, without the white space that controls beside them take."""
    around, made = ("", *chunks, ""), list(chunks)
    for i in range(0, len(made), 2):
        if strips.get(around[i], _NONE)[1]:
            made[i] = made[i].lstrip()
        if strips.get(around[i + 2], _NONE)[0]:
            made[i] = made[i].rstrip()
    return made
