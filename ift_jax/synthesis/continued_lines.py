"""A JSON-lines file whose lines have a fixed order, which an interrupted command continues."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.evaluation.answer_settings import REMEDY, begin_or_check
from ift_jax.io.files import append_json_lines
from ift_jax.io.json_reader import parse_json

_SECONDS_BETWEEN_REPORTS = 10.0


class ContinuedLines:
    """The lines of one file, each with the number of its item in the field "index".

    Lines are made in groups. A group is written at once and, if a kill cut it off, made again as a
    whole, so a file that was continued has the bytes of one that was not. The settings that the
    lines depend on are beside the file, in `<path>.settings.json`.

    Attributes:
        lines: The lines so far.
    """

    def __init__(
        self, path: str, settings: Mapping[str, Any], order: Sequence[int], group_size: int
    ):
        """Read what there is; remove a group that was cut off.

        Args:
            path: The file.
            settings: All that its lines depend on, in JSON's types.
            order: The numbers of the items, in the order of their lines.
            group_size: The lines of a group; the last one may have fewer.

        Raises:
            UserError: The file was begun with other settings, or holds something else.
        """
        self.path = path
        self._order = order
        self._group_size = group_size
        self.lines: list[dict[str, Any]] = []
        if begin_or_check(path, settings):
            self._read()

    def _read(self) -> None:
        ends = [0]
        with open(self.path, "rb+") as file:
            for content in file:
                if not content.endswith(b"\n"):
                    break
                where = f"{self.path}:{len(self.lines) + 1}"
                line = parse_json(content, where, expected=f"a JSON object; {REMEDY}")
                n = len(self.lines)
                wanted = self._order[n] if n < len(self._order) else None
                if not isinstance(line, dict) or line.get("index") != wanted:
                    raise UserError(f"{where}: is not the line of item {wanted}; {REMEDY}")
                self.lines.append(line)
                ends.append(ends[-1] + len(content))
            n_whole = len(self.lines)
            if n_whole < len(self._order):
                n_whole -= n_whole % self._group_size
            del self.lines[n_whole:]
            file.truncate(ends[n_whole])

    @property
    def n_lines(self) -> int:
        """How many lines there are to be."""
        return len(self._order)

    def next_group(self) -> Sequence[int]:
        """Return the items of the first group that is missing; empty if none is."""
        start = len(self.lines)
        return self._order[start : start + self._group_size]

    def append(self, lines: Sequence[dict[str, Any]]) -> None:
        """Write the next group durably."""
        append_json_lines(self.path, lines)
        self.lines += lines


class Progress:
    """Reports how many lines of a file are done, every few seconds and at the end."""

    def __init__(self, what: str, file: ContinuedLines, log: Callable[[str], None]):
        """Report what an interrupted command left.

        Args:
            what: What the lines hold, such as "rewards of".
            file: The file.
            log: Gets the lines of the report.
        """
        self._what = what
        self._file = file
        self._log = log
        self._last = time.monotonic()
        if file.lines:
            self._write(" were there")

    def report(self) -> None:
        """Report, if it is time to."""
        now = time.monotonic()
        is_last = len(self._file.lines) == self._file.n_lines
        if is_last or now - self._last >= _SECONDS_BETWEEN_REPORTS:
            self._last = now
            self._write("")

    def _write(self, end: str) -> None:
        n, total = len(self._file.lines), self._file.n_lines
        self._log(f"{self._what} {n:,} of {total:,} prompts{end}")
