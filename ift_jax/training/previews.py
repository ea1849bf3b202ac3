"""Completions of fixed prompts while a run trains, with special tokens visible."""

import os
from typing import Any, NamedTuple

from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.files import append_json_lines
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Params
from ift_jax.training.step_lines import keep_lines, keep_lines_until

# What is printed of a prompt (its end) and of an answer; the file has all of them.
SHOWN_PROMPT_CHARACTERS = 60
SHOWN_ANSWER_CHARACTERS = 100


class Preview(NamedTuple):
    """The completions at one step."""

    lines: list[str]  # One per prompt, for the terminal.
    stop_rate: float  # The fraction of completions that ended with a stop token.


class Previews:
    """Completes the first example of evenly spaced tasks greedily, at given steps.

    Prompts end where the model's turn begins and consist of the ids that training would see, so
    what is shown is what a user of the model will get; a missing stop token is visible as such.
    """

    def __init__(
        self,
        text_generator: TextGenerator,
        mixture: Mixture,
        workdir: str,
        step: int,
        *,
        write: bool,
    ):
        """Pick the prompts, and drop what the file has from later steps.

        Args:
            text_generator: Generates in the run's format.
            mixture: The examples to take prompts from; none of them is trained on.
            workdir: The local folder of `samples.jsonl`.
            step: The step that the run starts or resumes at.
            write: Whether this process writes the file.
        """
        n_prompts = min(text_generator.config.train.preview_prompts, len(mixture.tasks))
        self._task_ids = [round(i * len(mixture.tasks) / n_prompts) for i in range(n_prompts)]
        self._text_generator = text_generator
        self._mixture = mixture
        self._path = os.path.join(workdir, "samples.jsonl") if write else None
        if self._path:
            keep_lines_until(self._path, step)
        self._prompts = [text_generator.prompt(mixture.stores[i], 0) for i in self._task_ids]

    def drop(self, step: int) -> None:
        """Remove what the file has of a step, because it may be incomplete."""
        if self._path:
            keep_lines(self._path, lambda line_step: line_step != step)

    def write(self, params: Params, step: int, stopped: Stopped = never) -> Preview | None:
        """Generate the completions and append them to the file.

        Args:
            params: All of the model's parameters, frozen ones included.
            step: The number of steps that they were trained for.
            stopped: Whether to give up before the next batch of prompts.

        Returns:
            The completions, or None if it was stopped; then the file is as it was.
        """
        outputs = self._text_generator.generate(params, self._prompts, stopped)
        if len(outputs) < len(self._prompts):
            return None
        records = [
            self._record(step, self._task_ids[i], self._prompts[i], outputs[i])
            for i in range(len(self._prompts))
        ]
        if self._path:
            append_json_lines(self._path, records)
        n_stopped = sum(record["stopped"] for record in records)
        return Preview([_line(record) for record in records], n_stopped / len(records))

    def _record(
        self, step: int, task_id: int, prompt: list[int], output: list[int]
    ) -> dict[str, Any]:
        """Return the line of `samples.jsonl` for one completion, given in token ids."""
        tokenizer = self._text_generator.tokenizer
        return {
            "step": step,
            "task": self._mixture.tasks[task_id],
            "prompt": tokenizer.decode(prompt, keep_special=True),
            "completion": tokenizer.decode(output, keep_special=True),
            "references": list(self._mixture.stores[task_id].references(0)),
            "stopped": self._text_generator.stopped(output),
        }


def _line(record: dict[str, Any]) -> str:
    """Return a line for the terminal."""
    prompt_end = record["prompt"][-SHOWN_PROMPT_CHARACTERS:]
    answer = record["completion"][:SHOWN_ANSWER_CHARACTERS]
    expected = record["references"][0][:SHOWN_ANSWER_CHARACTERS]
    return f"  {record['task']}: {prompt_end!r} -> {answer!r} (expected {expected!r})"
