"""Every answer of a model, kept as soon as it is there.

Synthesis is a deterministic program but for the model that it asks. The journal keeps the model's
answers, a line for the requests of one call, so an interrupted program that is run again reads
what was answered before and asks only for the rest: nothing is lost and nothing is there twice.
The answers of a call that is not complete are in `answers_so_far`, if they come one by one.
"""

import os
from collections.abc import Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.files import append_json_lines
from ift_jax.io.json_reader import parse_json
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.synthesis.answers_so_far import AnswersSoFar, call_key, remove_answers_so_far
from ift_jax.synthesis.generator import Completer, Interrupted, TextCompletion, TextRequest


class JournaledCompleter:
    """A model whose answers are kept in a file, and are read from there when asked for again.

    Attributes:
        n_asked: The calls that the model itself had to answer.
    """

    def __init__(self, completer: Completer, path: str, stopped: Stopped = never):
        """Read the journal; a line that a kill cut off is removed.

        Args:
            completer: The model.
            path: The journal, which need not exist.
            stopped: Whether to ask the model nothing more.

        Raises:
            UserError: A line is none of a journal.
        """
        self._completer = completer
        self._path = path
        self._stopped = stopped
        self._answers: dict[str, list[list[TextCompletion]]] = {}
        self.n_asked = 0
        if os.path.exists(path):
            self._read()

    def settings(self) -> dict[str, Any]:
        return self._completer.settings()

    def complete(
        self, requests: Sequence[TextRequest], so_far: AnswersSoFar | None = None
    ) -> list[list[TextCompletion]]:
        """Return the answers to requests, from the journal if it has them.

        Raises:
            Interrupted: It has not, and no more is to be asked.
        """
        if not requests:
            return []
        key = call_key(requests)
        if key not in self._answers:
            if self._stopped():
                raise Interrupted
            folder = os.path.dirname(self._path)
            answers = self._completer.complete(requests, so_far or AnswersSoFar(folder, requests))
            append_json_lines(self._path, [{"requests": key, "answers": answers}])
            remove_answers_so_far(folder)
            self._answers[key] = answers
            self.n_asked += 1
        return self._answers[key]

    def _read(self) -> None:
        end = 0
        with open(self._path, "rb+") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                where = f"{self._path}:{number}"
                fields = parse_json(line, where, expected="answers of a model")
                try:
                    self._answers[fields["requests"]] = [
                        [TextCompletion(*answer) for answer in answers]
                        for answers in fields["answers"]
                    ]
                except (KeyError, TypeError):
                    raise UserError(
                        f"{where}: expected the answers of a model; remove the folder with the "
                        "output beside it, or name another --output"
                    ) from None
                end += len(line)
            file.truncate(end)
