"""A model whose answers are known, and kills at any byte of what synthesis writes."""

from collections.abc import Callable, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.synthesis import journal, rounds
from ift_jax.synthesis.answers_so_far import AnswersSoFar
from ift_jax.synthesis.generator import STOP, TextCompletion, TextRequest

_WORDS = (
    "list name explain three rivers short poem about winter summer cats why how compare two words "
    "translate this sentence into simple English summarize a letter to your aunt give reasons for "
    "music history food trains and their uses in daily life"
).split()


class Scripted:
    """Answers each request by a function of it alone."""

    def __init__(self, answer: Callable[[TextRequest], str | TextCompletion]):
        self._answer = answer
        self.requests: list[TextRequest] = []
        self.n_calls = 0

    def has_answered(self, n_calls: int) -> bool:
        return self.n_calls >= n_calls

    def settings(self):
        return {"model": "scripted"}

    def complete(
        self, requests: Sequence[TextRequest], so_far: AnswersSoFar | None = None
    ) -> list[list[TextCompletion]]:
        self.requests += requests
        self.n_calls += 1
        answers = []
        for request in requests:
            answer = self._answer(request)
            answers.append([TextCompletion(answer, STOP) if isinstance(answer, str) else answer])
        return answers


def babble(request: TextRequest) -> TextCompletion:
    """Write something in the form that is asked for, some of it good, as the request's own seed
    and prompt say."""
    prompt = str(request.prompt)
    draws = Draws(prompt, request.seed)

    def words(least: int, most: int) -> str:
        return " ".join(draws.choice(_WORDS) for _ in range(least + draws.below(most - least + 1)))

    reason = "length" if draws.below(5) == 0 else STOP
    if prompt.endswith("Fixed labels:"):
        return TextCompletion(draws.choice([" yes", " no", " perhaps"]), STOP)
    if prompt.endswith("Label:"):
        return TextCompletion(f" {words(1, 1)}\nInput: {words(1, 3)}\nLabel: {words(1, 1)}", reason)
    if prompt.endswith("Example 1\n"):
        text = f"Input: {words(1, 2)}\nOutput: {words(0, 2)}\nExample 2\nOutput: {words(1, 3)}"
        return TextCompletion(text, reason)
    if prompt.endswith("Instruction:"):
        tasks = [f" {words(2, 8)}\nInput: none\nOutput: {words(0, 3)}" for _ in range(4)]
        return TextCompletion("\n\nTask 5\nInstruction:".join(tasks), reason)
    if prompt.endswith(":"):
        return TextCompletion("\nTask 9: ".join(words(2, 8) for _ in range(5)), reason)
    return TextCompletion(words(0, 8), reason)


class Killed(BaseException):
    """Stands for SIGKILL."""


class Killer:
    """Kills the process while a given byte of everything that synthesis writes is written."""

    def __init__(self, monkeypatch, n_bytes: int):
        self._left = n_bytes
        for module in (journal, rounds):
            self._wrap(monkeypatch, module, "append_json_lines", self._append)
        self._wrap(monkeypatch, rounds, "write", self._write)

    def _wrap(self, monkeypatch, module, name, replacement):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args: replacement(original, *args))

    def _append(self, original, path, values):
        values = list(values)
        before = _content(path)
        original(path, values)
        n_new = len(_content(path)) - len(before)
        if n_new > self._left:
            with open(path, "rb+") as file:
                file.truncate(len(before) + self._left)
            raise Killed
        self._left -= n_new

    def _write(self, original, path, content):
        if len(content) > self._left:  # The file is there as a whole, or as it was before.
            raise Killed
        self._left -= len(content)
        original(path, content)


def _content(path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
