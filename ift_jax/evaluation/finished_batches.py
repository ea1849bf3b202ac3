"""Answers of batches that are done before all prompts in front of them are answered."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.files import append_json_lines, json_digest
from ift_jax.io.json_reader import parse_json

Ids = Sequence[int]


class FinishedBatches:
    """A file beside an output whose answers are in the prompts' order.

    The prompts of a window are answered by length, so batches are done in another order than they
    are written in. This file keeps their ids until the window is written.
    """

    def __init__(self, output: str, settings: Mapping[str, Any]):
        """Read what a run that was stopped or killed left.

        Args:
            output: The output file.
            settings: All that determines the answers besides the prompts. What the file has of
                other settings is not used.
        """
        self._path = f"{output}.unordered.jsonl"
        self._settings = json_digest(settings)
        self._answers: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        if os.path.exists(self._path):
            with open(self._path, "rb") as file:
                for line in file:
                    self._read(line)

    def _read(self, line: bytes) -> None:
        """Take a line; one that was cut off is answered again."""
        try:
            settings, index, prompt, answer = parse_json(line, self._path)
            if settings == self._settings:
                self._answers[index, tuple(prompt)] = answer
        except (UserError, ValueError, TypeError):
            return

    def of_window(self, first: int, prompts: Sequence[Ids]) -> dict[int, list[int]]:
        """Return the known answers to prompts that begin with number `first`, by their place."""
        keys = [(first + place, tuple(prompt)) for place, prompt in enumerate(prompts)]
        return {i: self._answers[key] for i, key in enumerate(keys) if key in self._answers}

    def add(self, first: int, prompts: Sequence[Ids], answers: Mapping[int, list[int]]) -> None:
        """Keep the answers of a batch.

        Args:
            first: The number of the window's first prompt.
            prompts: The ids of the window's prompts.
            answers: The ids of some answers, by place in the window.
        """
        if answers:
            append_json_lines(
                self._path,
                [
                    [self._settings, first + i, list(prompts[i]), answer]
                    for i, answer in answers.items()
                ],
            )

    def clear(self) -> None:
        """Remove the file, because all its answers are in the output."""
        if os.path.exists(self._path):
            os.remove(self._path)
        self._answers.clear()
