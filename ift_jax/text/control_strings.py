"""Control strings: the strings of special tokens, such as `<|im_end|>`.

A template writes them to structure a conversation. One that a user typed must not have that effect:
it is broken by a mark, so that it is not found, and its parts are encoded as ordinary text.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from ift_jax.text.marks import BREAK

# What `tokenizers` takes for white space beside a token: Unicode's property White_Space, where
# Python's `str.strip()` takes four more characters.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_KEEPS_SPACE = (False, False)


def control_pattern(strings: Iterable[str]) -> re.Pattern[str] | None:
    """Compile a pattern that finds unbroken control strings, the longest first.

    The pattern has one group, so that `split` returns texts and control strings in turn.

    Args:
        strings: The control strings; empty ones are ignored.

    Returns:
        The pattern, or None if there are no control strings.
    """
    longest_first = sorted({s for s in strings if s}, key=lambda s: (-len(s), s))
    if not longest_first:
        return None
    return re.compile(f"({'|'.join(map(_unbroken, longest_first))})")


def break_control_strings(text: str, pattern: re.Pattern[str]) -> tuple[str, int]:
    """Break the control strings in a text; return the new text and their number."""
    return pattern.subn(_broken, text)


def unbroken_parts(text: str) -> list[str]:
    """Split a text where its control strings were broken, which removes the marks."""
    return text.split(BREAK)


def strip_beside_controls(
    chunks: Sequence[str],
    strips: Mapping[str, tuple[bool, bool]],
    white_space: str | None = WHITE_SPACE,
) -> list[str]:
    """Remove the white space that control tokens swallow from the texts beside them.

    Args:
        chunks: Texts and control strings in turn; a text comes first and last.
        strips: See `Tokenizer.strips`.
        white_space: The characters that are white space; None: those that `str.strip` takes.
    """
    stripped = list(chunks)
    for i in range(0, len(chunks), 2):
        before = chunks[i - 1] if i > 0 else ""
        after = chunks[i + 1] if i + 1 < len(chunks) else ""
        if strips.get(before, _KEEPS_SPACE)[1]:
            stripped[i] = stripped[i].lstrip(white_space)
        if strips.get(after, _KEEPS_SPACE)[0]:
            stripped[i] = stripped[i].rstrip(white_space)
    return stripped


def _unbroken(string: str) -> str:
    """Return a regular expression for one control string that is not broken."""
    # A single character cannot be broken inside: the mark stands in front of it.
    not_broken = f"(?<!{BREAK})" if len(string) == 1 else ""
    return not_broken + re.escape(string)


def _broken(match: re.Match[str]) -> str:
    string = match[0]
    return string[0] + BREAK + string[1:] if len(string) > 1 else BREAK + string
