"""Scores on unseen examples when training ends."""

import os
from typing import Any

from ift_jax.evaluation.evaluate import evaluate, evaluation_settings, plan
from ift_jax.evaluation.finished_batches import FinishedAnswers, remove_unfinished
from ift_jax.evaluation.metric_values import json_lines, json_text
from ift_jax.evaluation.score_table import SET_TITLES, gain_lines, table
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.folders import write_files
from ift_jax.io.stop_signals import Stopped
from ift_jax.models.model import Params
from ift_jax.training.answer_metrics import metrics_record
from ift_jax.training.console import Console
from ift_jax.training.metric_writer import MetricWriter
from ift_jax.training.setup import Run

ANSWERS_FILE = "answers.jsonl"
FINAL = "evaluation"  # What trackers call these scores, which are of more examples than others.
_NOT_SCORES = ("answers", "complete")  # Answers have a file of their own.


def final_evaluation(
    run: Run,
    text_generator: TextGenerator,
    params: Params,
    step: int,
    console: Console,
    writer: MetricWriter | None,
    workdir: str,
    stopped: Stopped,
) -> bool:
    """Evaluate the mixtures that `evaluation.sets` names, and print the scores.

    If it is stopped, the answers so far and the scores of complete mixtures are written.

    Args:
        run: The run.
        text_generator: Generates in the run's format.
        params: All of the model's parameters, frozen ones included.
        step: The number of steps that they were trained for.
        console: Where to print.
        writer: Writes the numbers to `metrics.jsonl`, TensorBoard and trackers; None for processes
            that write nothing.
        workdir: The local folder of `evaluation.json` (the scores) and `answers.jsonl` (every
            answer behind them).
        stopped: Whether to end before the next batch.

    Returns:
        Whether it came to its end.
    """
    mixtures = {"eval": run.eval, "heldout": run.heldout}
    results: dict[str, dict[str, Any]] = {}
    answers: list[dict[str, Any]] = []
    is_complete = True
    for name, mixture in mixtures.items():
        if mixture is None or name not in run.config.evaluation.sets:
            continue
        title = SET_TITLES[name]
        settings = evaluation_settings(text_generator, params, name)
        finished = None
        if writer:
            finished = FinishedAnswers.beside(os.path.join(workdir, ANSWERS_FILE), settings)
        planned = plan(text_generator, mixture)
        result = evaluate(text_generator, params, planned, stopped, finished=finished)
        answers += result["answers"]
        if not result["complete"]:
            console.line(
                f"stopped by a signal while evaluating {title}: {len(answers)} answers so far are "
                "in answers.jsonl. The same command continues."
            )
            is_complete = False
            break
        console.line(*table(title, result))
        if name == "heldout":
            console.line(*gain_lines(result))
        results[name] = {key: result[key] for key in result if key not in _NOT_SCORES}
    if writer:
        scores = {SET_TITLES[name]: result for name, result in results.items()}
        files = {
            "evaluation.json": json_text(scores).encode(),
            ANSWERS_FILE: json_lines(answers),
        }
        write_files(workdir, files)
        if is_complete:
            writer.write({"step": step, FINAL: metrics_record(results)})
            remove_unfinished(os.path.join(workdir, ANSWERS_FILE))
    return is_complete
