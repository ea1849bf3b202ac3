"""Pieces of a page in Markdown, with texts of users written so that they are never markup."""

import re
from collections.abc import Iterable, Sequence


def code(text: object) -> str:
    """Return a text on one line as code, which may stand in a table."""
    line = " ".join(str(text).split()) or " "
    ticks = _longest_run(line) + 1
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{'`' * ticks}{space}{line}{space}{'`' * ticks}".replace("|", "\\|")


def block(text: str, language: str = "") -> str:
    """Return a text as a block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; cells are Markdown, on one line."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _longest_run(text: str) -> int:
    """Return the length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
