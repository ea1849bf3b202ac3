"""Marks: noncharacters that stand inside a text while a chat template renders it.

A template writes one string. Two marks enclose the answers in it, a third breaks the control
strings that a user typed, so that they stay ordinary text, and a fourth encloses other contents
that are to be found again. Unicode sets U+FDD0 to U+FDEF aside for such internal use. Text should
contain none of them. Where it does, characters that look like marks are replaced by other
noncharacters while it is rendered, and restored before it is encoded.
"""

import re
from collections.abc import Iterable

from ift_jax.errors import UserError

GENERATION_START = "\ufdd0"  # Written where `{% generation %}` stands.
GENERATION_END = "\ufdd1"  # Written where `{% endgeneration %}` stands.
BREAK = "\ufdd2"  # Inside a control string that a user typed.
TURN_EDGE = "\ufdd3"  # At the beginning and the end of a content that is to be found again.

_MARKS = (GENERATION_START, GENERATION_END, BREAK, TURN_EDGE)
_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]
_ANY_NONCHARACTER = re.compile(f"[{''.join(_NONCHARACTERS)}]")


def has_noncharacter(text: str) -> bool:
    """Whether a text contains a noncharacter, and so may contain a mark."""
    return not text.isascii() and _ANY_NONCHARACTER.search(text) is not None


def stand_ins(texts: Iterable[str], where: str) -> dict[int, str]:
    """Choose noncharacters that stand in for the marks in a record's own texts.

    Args:
        texts: All texts of the record.
        where: The record's place, for the error.

    Returns:
        A table for `str.translate`, from each mark to a noncharacter that no text contains.

    Raises:
        UserError: The texts leave too few noncharacters free.
    """
    taken = {character for text in texts for character in text}
    free = [c for c in _NONCHARACTERS if c not in taken and c not in _MARKS]
    if len(free) < len(_MARKS):
        raise UserError(f"{where}: the text holds all of U+FDD0 to U+FDEF")
    return {ord(mark): free[i] for i, mark in enumerate(_MARKS)}


def inverse(table: dict[int, str]) -> dict[int, str]:
    """Invert a table for `str.translate`."""
    return {ord(new): chr(old) for old, new in table.items()}
