"""The answers of a model's call that is under way, each kept as soon as it arrives.

An endpoint answers the requests of a call one by one, and a call of many takes minutes. A command
that is killed meanwhile, or whose endpoint fails, asks only for the rest when it is run again.
"""

import dataclasses
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.files import append_json_lines, json_digest
from ift_jax.io.json_reader import parse_json
from ift_jax.synthesis.generator import TextCompletion, TextRequest

_FILE = "answers_so_far.jsonl"
_NOTHING: Mapping[str, Any] = {}


def call_key(requests: Sequence[TextRequest]) -> str:
    """Return what tells the requests of a call from those of another: a hash."""
    return json_digest([dataclasses.asdict(request) for request in requests])


def remove_answers_so_far(folder: str) -> None:
    """Remove the file in a folder, because all its answers are kept elsewhere."""
    path = os.path.join(folder, _FILE)
    if os.path.exists(path):
        os.remove(path)


class AnswersSoFar:
    """A file of the answers of one call, which is removed when all are kept elsewhere.

    Attributes:
        known: The answers by the places of their requests in the call.
    """

    def __init__(
        self,
        folder: str,
        requests: Sequence[TextRequest],
        settings: Mapping[str, Any] = _NOTHING,
    ):
        """Read what an interrupted command left of this very call; of others, nothing counts.

        Args:
            folder: Holds the file.
            requests: The requests of the call.
            settings: What tells the model from another, in JSON's types, unless it is the same in
                the whole life of the folder.
        """
        self.known: dict[int, list[TextCompletion]] = {}
        self._path = os.path.join(folder, _FILE)
        self._key = json_digest([dict(settings), call_key(requests)])
        self._lock = threading.Lock()
        if os.path.exists(self._path):
            self._read(len(requests))

    def add(self, place: int, answers: list[TextCompletion]) -> None:
        """Keep the answers to one request, durably; threads may call it at once."""
        with self._lock:
            append_json_lines(self._path, [[self._key, place, answers]])
            self.known[place] = answers

    def _read(self, n_requests: int) -> None:
        """Take the lines of this call, up to one that a kill cut off, which is removed."""
        end = 0
        with open(self._path, "rb+") as file:
            for line in file:
                try:
                    key, place, answers = parse_json(line, self._path)
                    found = [TextCompletion(*answer) for answer in answers]
                except (UserError, ValueError, TypeError):
                    break  # Asking again mends whatever it is.
                if key == self._key and place in range(n_requests):
                    self.known[place] = found
                end += len(line)
            file.truncate(end)
