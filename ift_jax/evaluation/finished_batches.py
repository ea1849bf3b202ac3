"""Answers of batches that are done before all prompts in front of them are answered."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.files import append_json_lines, json_digest
from ift_jax.io.json_reader import parse_json
from ift_jax.sharding.first_process import of_first_process

Ids = Sequence[int]


class FinishedBatches:
    """A file beside an output whose answers are in the prompts' order.

    The prompts of a window are answered by length, so batches are done in another order than they
    are written in. This file keeps them until the window is written.
    """

    def __init__(self, output: str, settings: Mapping[str, Any]):
        """Read what a run that was stopped or killed left.

        Args:
            output: The output file.
            settings: All that determines the answers besides the prompts. What the file has of
                other settings is not used.
        """
        self._path = _path_beside(output)
        self._settings = json_digest(settings)
        self._answers: dict[tuple[int, tuple[int, ...]], Any] = {}
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

    def of_window(self, first: int, prompts: Sequence[Ids]) -> dict[int, Any]:
        """Return the known answers to prompts that begin with number `first`, by their place."""
        keys = [(first + place, tuple(prompt)) for place, prompt in enumerate(prompts)]
        return {i: self._answers[key] for i, key in enumerate(keys) if key in self._answers}

    def add(self, first: int, prompts: Sequence[Ids], answers: Mapping[int, Any]) -> None:
        """Keep the answers of a batch.

        Args:
            first: The number of the window's first prompt.
            prompts: The ids of the window's prompts.
            answers: What is kept of some answers, by place in the window, in JSON's types: ids,
                scores of choices, or fields.
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


def _path_beside(output: str) -> str:
    return f"{output}.unordered.jsonl"


def remove_unfinished(output: str) -> None:
    """Remove the file of unfinished answers beside an output, because all are in it."""
    if os.path.exists(_path_beside(output)):
        os.remove(_path_beside(output))


def known_answers(finished: FinishedBatches | None, prompts: Sequence[Ids]) -> dict[int, list[Any]]:
    """Return the known answers to prompts, by their place: the same on every process.

    Args:
        finished: Has them on the first process; the others need not have any file.
        prompts: The ids of the prompts.
    """
    known = of_first_process(sorted(finished.of_window(0, prompts).items()) if finished else [])
    return {i: answer for i, answer in known}


class FinishedAnswers(NamedTuple):
    """The answers that an evaluation which was stopped or killed has found.

    Attributes:
        generated: Those that were generated.
        ranked: The scores of choices that were ranked.
    """

    generated: FinishedBatches
    ranked: FinishedBatches

    @classmethod
    def beside(cls, output: str, settings: Mapping[str, Any]) -> "FinishedAnswers":
        """Open the file of unfinished answers beside an output; see `FinishedBatches`."""
        generated, ranked = (
            FinishedBatches(output, {**settings, "kind": kind}) for kind in ("generated", "ranked")
        )
        return cls(generated, ranked)
