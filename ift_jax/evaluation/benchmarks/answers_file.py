"""The answers of one benchmark as JSON lines that an interrupted run continues."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ift_jax.errors import UserError
from ift_jax.evaluation.answer_settings import REMEDY, begin_or_check
from ift_jax.io.files import append_json_lines, write
from ift_jax.io.json_reader import parse_json

Key = tuple[str, int]  # The item's id, and the turn.


class AnswersFile:
    """Answers by item and turn, appended batch by batch, and in the items' order at the end.

    Attributes:
        lines: The answers so far.
    """

    def __init__(self, path: str, settings: Mapping[str, Any]):
        """Read what an earlier run left; a line that was cut off is answered again.

        Args:
            path: The file; `<path>.settings.json` beside it holds the settings.
            settings: Everything but the prompts that determines the answers, in JSON's types.

        Raises:
            UserError: The file was begun with other settings, or holds something else.
        """
        self.path = path
        self.lines: dict[Key, dict[str, Any]] = {}
        if begin_or_check(path, settings):
            self._read()

    def _read(self) -> None:
        end = 0
        with open(self.path, "rb+") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                where = f"{self.path}:{number}"
                fields = parse_json(line, where, expected=f"an answer; {REMEDY}")
                if not isinstance(fields, dict) or not {"id", "turn", "prompt_ids"} <= set(fields):
                    raise UserError(f"{where}: is no answer to a benchmark; {REMEDY}")
                self.lines[fields["id"], fields["turn"]] = fields
                end += len(line)
            file.truncate(end)

    def known(self, key: Key, prompt_ids: str) -> bool:
        """Return whether there is an answer to this very prompt.

        Raises:
            UserError: There is one to another prompt.
        """
        line = self.lines.get(key)
        if line is not None and line["prompt_ids"] != prompt_ids:
            raise UserError(f"{self.path}: answers {key[0]} after another prompt; {REMEDY}")
        return line is not None

    def add(self, lines: Sequence[dict[str, Any]]) -> None:
        """Append answers."""
        append_json_lines(self.path, lines)
        self.lines |= {(line["id"], line["turn"]): line for line in lines}

    def finish(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Replace the file by the answers in the items' order, with their scores.

        Answers to items that were not asked for this time are kept behind them.
        """
        asked = {(line["id"], line["turn"]) for line in lines}
        others = [line for key, line in self.lines.items() if key not in asked]
        content = [json.dumps(line, ensure_ascii=False) + "\n" for line in (*lines, *others)]
        write(Path(self.path), "".join(content).encode())
