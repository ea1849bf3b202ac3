"""Tables of plain text that fit the width of the terminal, or a fixed one in a file."""

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len

FILE_WIDTH = 120  # Columns where the output is no terminal and COLUMNS is not set.
# Tables of more tasks than this are summarized on a screen, unless every task is asked for.
MOST_LISTED = 30
_LEAST_WIDTH = 30  # A narrower terminal wraps the lines.
_INDENT = 2
_GAP = 2
_LEAST_NAME = 20  # Columns that a name keeps when the others do not fit beside it.
_BREAK_AFTER = "_-/,"  # If there is no blank.


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        head: What it holds.
        cells: A text for each row; "" if the row has none.
        left: Whether its texts begin at one place; numbers end at one place.
    """

    head: str
    cells: Sequence[str]
    left: bool = False

    @property
    def width(self) -> int:
        """The width of its longest text."""
        return max(cell_len(self.head), self.cell_width)

    @property
    def cell_width(self) -> int:
        """The width of its longest text below the head."""
        return max(map(cell_len, self.cells), default=0)

    @property
    def least_width(self) -> int:
        """The width that it needs if its head is broken between words."""
        return max(self.cell_width, *(cell_len(word) for word in self.head.split(" ")))


def output_width() -> int:
    """Return the width to write for: COLUMNS, the terminal's own, or `FILE_WIDTH`."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or FILE_WIDTH
    except (OSError, ValueError):  # No terminal, or no file at all.
        return FILE_WIDTH


def table_lines(keys: Sequence[Column], columns: Sequence[Column], width: int) -> list[str]:
    """Return a table as lines that are no wider than `width`, with nothing cut.

    Columns that do not fit follow in further blocks, each with the key columns before them. A
    further block has only the rows that have a text in it. A text that is too long for its column
    goes on in the next line of the same column.

    Args:
        keys: The columns that every block begins with; the first holds the names of the rows.
        columns: The others.
        width: The most columns of a line.
    """
    width = max(width, _LEAST_WIDTH)
    everything = [*keys, *columns]
    if _INDENT + sum(column.width + _GAP for column in everything) - _GAP <= width:
        return _block_lines(everything, [column.width for column in everything], len(keys))
    key_widths = [key.least_width for key in keys]
    between = _INDENT + sum(key_widths[1:]) + _GAP * (len(keys) - 1)
    if not columns:
        key_widths[0] = max(min(key_widths[0], width - between), 1)
        return _block_lines(keys, key_widths, len(keys))
    most_room = width - between - _GAP
    key_widths[0] = _name_width(key_widths[0], columns, most_room)
    room = max(most_room - key_widths[0], 1)
    lines: list[str] = []
    for block in _blocks(columns, room):
        if lines:
            lines.append("")
        widths = [min(column.least_width, room) for column in block]
        lines += _block_lines([*keys, *block], [*key_widths, *widths], len(keys))
    return lines


def _name_width(longest: int, columns: Sequence[Column], room: int) -> int:
    """Return the width of the names: the largest with which the columns take the fewest blocks.

    Args:
        longest: The width of the longest name.
        columns: The columns beside the names.
        room: The width that names and columns share.
    """
    least = max(min(longest, _LEAST_NAME, room - 1), 1)
    fewest = len(_blocks(columns, max(room - least, 1)))
    widths = range(min(longest, max(room - 1, least)), least, -1)
    return next((w for w in widths if len(_blocks(columns, room - w)) == fewest), least)


def _blocks(columns: Sequence[Column], room: int) -> list[list[Column]]:
    """Return the columns of each block; one block without any if there are none."""
    blocks: list[list[Column]] = [[]]
    left = room
    for column in columns:
        needed = min(column.least_width, room)
        if blocks[-1] and needed > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= needed + _GAP
    return blocks


def _block_lines(columns: Sequence[Column], widths: Sequence[int], n_keys: int) -> list[str]:
    lines = _row_lines([column.head for column in columns], columns, widths, at_bottom=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        if any(cells[n_keys:]) or len(columns) == n_keys:
            lines += _row_lines(cells, columns, widths)
    return lines


def _row_lines(
    cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], at_bottom: bool = False
) -> list[str]:
    """Return the lines of a row; a head stands at the bottom of its lines."""
    texts = [folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, texts))
    lines = []
    for i in range(height):
        parts = []
        for text, column, width in zip(texts, columns, widths, strict=True):
            k = i - (height - len(text)) if at_bottom else i
            part = text[k] if 0 <= k < len(text) else ""
            padding = " " * (width - cell_len(part))
            parts.append(part + padding if column.left else padding + part)
        lines.append((" " * _INDENT + (" " * _GAP).join(parts)).rstrip())
    return lines


def folded(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` columns, broken between words where it can be."""
    lines = []
    while cell_len(text) > width:
        end = _fitting(text, width)
        # A blank may stand just behind the line, because it is not shown there.
        blank = text.rfind(" ", 1, end + 1)
        breaks = [k + 1 for k in range(end // 2, end) if text[k] in _BREAK_AFTER]
        if blank > 0:
            end = blank
        elif breaks:
            end = breaks[-1]
        lines.append(text[:end].rstrip(" "))
        text = text[end:].lstrip(" ")
    return [*lines, text]


def _fitting(text: str, width: int) -> int:
    """Return how many characters of a text fit, at least one."""
    used = 0
    for k, character in enumerate(text):
        used += cell_len(character)
        if used > width:
            return max(k, 1)
    return len(text)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """Return a line of prose in lines of at most `width`; the further ones are set in by four.

    A word is never broken, because it may be a path to copy: one that is longer has its own line.

    Args:
        text: The line.
        width: The most columns of a line.
        indent: The blanks before the first line.
    """
    lines: list[str] = []
    line = " " * indent
    is_empty = True
    for word in text.split():
        if not is_empty and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line = " " * (indent + 4)
            is_empty = True
        line += word if is_empty else f" {word}"
        is_empty = False
    return [*lines, line]
