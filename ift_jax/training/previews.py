"""Generations of fixed prompts while a run trains, special tokens visible."""

import os
from typing import Any

from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.files import append_json_lines
from ift_jax.training.metric_writer import drop_later


class Previews:
    """The first example of evenly spread tasks, answered greedily at given steps.

    Prompts are cut at the turn's border, from the ids that training would see, so what is
    shown is what a user of the model will get; a missing stop token is visible as such.
    """

    def __init__(
        self, text_generator: TextGenerator, view: Mixture, workdir: str, step: int, *, write: bool
    ):
        """Picks prompts that are not trained on; goes on after `step` if this process writes."""
        count = min(text_generator.config.train.preview_prompts, len(view.tasks))
        self._tasks = [round(i * len(view.tasks) / count) for i in range(count)]
        self._answerer, self._view = text_generator, view
        self._path = os.path.join(workdir, "samples.jsonl") if write else None
        if self._path:
            drop_later(self._path, step)
        self._prompts = [text_generator.prompt(view.stores[task], 0) for task in self._tasks]

    def write(self, params: Any, step: int) -> tuple[list[str], float]:
        """Answers, appends to the file, and returns lines to show and the stop rate."""
        tokenizer = self._answerer.tokenizer
        outputs = self._answerer.generate(params, self._prompts)
        records: list[dict[str, Any]] = [
            {
                "step": step,
                "task": self._view.tasks[task],
                "prompt": tokenizer.decode(prompt, keep_special=True),
                "completion": tokenizer.decode(output, keep_special=True),
                "references": list(self._view.stores[task].references(0)),
                "stopped": self._answerer.stops.stopped(output),
            }
            for task, prompt, output in zip(self._tasks, self._prompts, outputs, strict=True)
        ]
        if self._path:
            append_json_lines(self._path, records)
        lines = [  # With the prompt's end; the file has all of it.
            f"  {r['task']}: {r['prompt'][-300:]!r} -> {r['completion']!r}"
            f" (expected {r['references'][0]!r})"
            for r in records
        ]
        return lines, sum(record["stopped"] for record in records) / len(records)
