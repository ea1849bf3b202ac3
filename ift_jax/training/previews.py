"""Completions of fixed prompts while a run trains, with special tokens visible."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.files import append_json_lines
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.models.model import Params
from ift_jax.sharding.trees import abstract
from ift_jax.training.console import Console
from ift_jax.training.metric_writer import MetricWriter
from ift_jax.training.step_lines import keep_lines, keep_lines_until

# What is printed of a prompt (its end) and of an answer; the file has all of them.
SHOWN_PROMPT_CHARACTERS = 60
SHOWN_ANSWER_CHARACTERS = 100


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
        console: Console,
        writer: MetricWriter | None,
    ):
        """Pick the prompts, and drop what the file has from later steps.

        Args:
            text_generator: Generates in the run's format.
            mixture: The examples to take prompts from; none of them is trained on.
            workdir: The local folder of `samples.jsonl`.
            step: The step that the run starts or resumes at.
            console: Where to print.
            writer: Writes `metrics.jsonl`; None for processes that write nothing.
        """
        n_prompts = min(text_generator.config.train.preview_prompts, len(mixture.tasks))
        self._task_ids = [round(i * len(mixture.tasks) / n_prompts) for i in range(n_prompts)]
        self._text_generator = text_generator
        self._mixture = mixture
        self._console = console
        self._writer = writer
        self._path = os.path.join(workdir, "samples.jsonl") if writer else None
        if self._path:
            keep_lines_until(self._path, step)
        self._compiling: Future[None] | None = None
        self._prompts = [text_generator.prompt(mixture.stores[i], 0) for i in self._task_ids]

    def drop(self, step: int) -> None:
        """Remove what the file has of a step, because it may be incomplete."""
        if self._path:
            keep_lines(self._path, lambda line_step: line_step != step)

    def compile_ahead(self, params: Params) -> None:
        """Start compiling what decodes the prompts on a thread, while this one evaluates.

        Several processes must compile in the same order, so they do nothing ahead.
        """
        if jax.process_count() > 1:
            return
        shapes = abstract(params, jax.tree.map(lambda leaf: leaf.sharding, params))
        mesh = jax.sharding.get_mesh()

        def compile_programs() -> None:
            with jax.set_mesh(mesh):  # It is the thread's own.
                self._text_generator.compile(shapes, self._prompts)

        pool = ThreadPoolExecutor(max_workers=1)
        self._compiling = pool.submit(compile_programs)
        pool.shutdown(wait=False)

    def wait_for_programs(self) -> None:
        """Wait for what `compile_ahead` compiles; raises what that raised."""
        if self._compiling:
            self._compiling.result()
            self._compiling = None

    def __call__(self, params: Params, step: int, stopped: Stopped = never) -> bool:
        """Generate the completions, append them to the file, and print them.

        Args:
            params: All of the model's parameters, frozen ones included.
            step: The number of steps that they were trained for.
            stopped: Whether to give up before the next batch of prompts; then nothing is written.

        Returns:
            Whether no stop came between.
        """
        outputs = self._text_generator.generate(params, self._prompts, stopped)
        if len(outputs) < len(self._prompts):
            return False
        records = [
            self._record(step, self._task_ids[i], self._prompts[i], outputs[i])
            for i in range(len(self._prompts))
        ]
        if self._path:
            append_json_lines(self._path, records)
        stop_rate = sum(record["stopped"] for record in records) / len(records)
        lines = [_line(record) for record in records]
        self._console.line(f"samples at step {step} (stop rate {stop_rate:.2f}):", *lines)
        if self._writer:
            self._writer.write({"step": step, "preview_stop_rate": stop_rate})
        return True

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
