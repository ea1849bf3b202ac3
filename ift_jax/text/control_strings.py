"""Control strings: the strings of special tokens, such as `<|im_end|>`.

A template writes them to structure a conversation. One that a user typed must not have that effect:
it is broken by a mark, so that it is not found, and its parts are encoded as ordinary text.
"""

import re
from collections.abc import Iterable

from ift_jax.text.marks import BREAK


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


def _unbroken(string: str) -> str:
    """Return a regular expression for one control string that is not broken."""
    # A single character cannot be broken inside: the mark stands in front of it.
    not_broken = f"(?<!{BREAK})" if len(string) == 1 else ""
    return not_broken + re.escape(string)


def _broken(match: re.Match[str]) -> str:
    string = match[0]
    return string[0] + BREAK + string[1:] if len(string) > 1 else BREAK + string
