"""Rounds of rejection sampling with a scripted model, and kills at any of their events."""

import json
from pathlib import Path

from ift_jax.synthesis import continued_lines
from ift_jax.synthesis.generator import LENGTH, STOP, TOO_LONG, TextCompletion
from ift_jax.synthesis.prompt_rows import read_prompt_rows
from ift_jax.synthesis.rejection_plan import Plan
from ift_jax.synthesis.reward_functions import load_function
from ift_jax.synthesis.reward_process import outcome_of


class Killed(BaseException):
    """Ends a run as a kill does."""


class Script:
    """A model that answers with a number from 0 to 3 by the seed, and what it was asked."""

    def __init__(self, name="start", kill=lambda: None):
        self.name = name
        self.seeds = []
        self._kill = kill

    def settings(self):
        return {"weights": self.name}

    def complete(self, requests, so_far=None):
        self._kill()
        self.seeds += [request.seed for request in requests]
        return [[self._answer(request)] for request in requests]

    def _answer(self, request):
        text = request.prompt[-1].content
        if text.startswith("long"):
            return TextCompletion("", TOO_LONG)
        reason = LENGTH if request.seed % 11 == 0 else STOP
        return TextCompletion(f" {request.seed % 4} ", reason)


class InProcess:
    """A reward function called here, without a process of its own."""

    def __init__(self, spec, kill=lambda: None):
        self.name = f"reward function {spec.name}"
        self._spec = spec
        self._function = load_function(spec)
        self._kill = kill

    def settings(self):
        return {"reward": self._spec.name}

    def score(self, samples):
        self._kill()
        return [outcome_of(self._function, one.completion, dict(one.row)) for one in samples]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def plan_of(path, **fields):
    return Plan(
        read_prompt_rows(path), **{"samples": 4, "max_tokens": 8, "batch_size": 8, **fields}
    )


def files_of(folder):
    """The bytes of every file below a folder."""
    folder = Path(folder)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Kills:
    """Raises `Killed` at the event of one number: a call, or the middle of an append."""

    def __init__(self, monkeypatch):
        self.at = -1
        self.n_events = 0
        append = continued_lines.append_json_lines

        def torn(path, lines):
            if self._is_now():
                append(path, lines)
                content = Path(path).read_bytes()
                Path(path).write_bytes(content[:-7])  # The last line is cut off.
                raise Killed
            append(path, lines)
            self.event()

        monkeypatch.setattr(continued_lines, "append_json_lines", torn)

    def _is_now(self):
        self.n_events += 1
        return self.n_events - 1 == self.at

    def event(self):
        if self._is_now():
            raise Killed
