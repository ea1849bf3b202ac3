"""The tokens of turns that are trained although no model generates them: a user's, a tool's.

A template says where an assistant's answers are. Where another turn's content is shows when the
template renders it between marks. The ids stay those of the conversation: no token is split.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.text.token_characters import TokenCharacters
from ift_jax.text.tokenizers.base import Tokenizer


class MarkedText(NamedTuple):
    """What a template wrote, and where the contents of some turns are in it."""

    text: str
    contents: Mapping[int, tuple[int, int]]  # By message: half-open, in characters.


def turn_tokens(
    ids: Sequence[int], marked: MarkedText, tokenizer: Tokenizer, place: str
) -> dict[int, slice]:
    """Return the tokens of turns: those of a content, and the control token that ends it.

    The control token follows the content, with nothing but white space between. A token that also
    holds characters of a header is left out.

    Args:
        ids: The tokens of the conversation.
        marked: What the template wrote of it.
        tokenizer: The tokenizer.
        place: The record's place, for the error.

    Raises:
        UserError: The tokenizer does not keep the text, so its characters have no tokens.
    """
    characters = TokenCharacters(ids, tokenizer)
    controls = set(tokenizer.special_tokens.values())
    found = {}
    for turn, content in marked.contents.items():
        there = _same_place(characters.text, marked.text, *content)
        if there is None:
            raise UserError(
                f"{place}: messages[{turn}]: format.train_roles cannot be kept: the tokenizer"
                " changes the text, so the content cannot be found among the tokens"
            )
        tokens = characters.within(*there)
        stop = tokens.stop
        while stop < len(ids) and not tokenizer.decode(ids[stop : stop + 1]).strip():
            if ids[stop] in controls:
                tokens = slice(tokens.start, stop + 1)
                break
            stop += 1
        found[turn] = tokens
    return found


def _same_place(decoded: str, text: str, begin: int, end: int) -> tuple[int, int] | None:
    """Return where a stretch of a text is in the text that its tokens decode to.

    The two may differ in white space, which some tokenizers add to a text or take from it.
    """
    if decoded.startswith(text[:end]):
        return begin, end
    before, upto = _squeezed(text[:begin]), _squeezed(text[:end])
    if not _squeezed(decoded).startswith(upto):
        return None
    written = [i for i, character in enumerate(decoded) if not character.isspace()]
    if len(before) == len(upto):
        edge = written[len(before) - 1] + 1 if before else 0
        return edge, edge
    return written[len(before)], written[len(upto) - 1] + 1


def _squeezed(text: str) -> str:
    return "".join(text.split())
