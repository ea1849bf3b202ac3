"""How likely a model finds targets and answers: what metrics take, and the held-out loss."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.log_likelihoods import Continuation, log_likelihoods
from ift_jax.evaluation.questions import Question
from ift_jax.evaluation.task_metrics import TaskMetrics
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.stop_signals import Stopped
from ift_jax.models.model import Params


def likelihoods(
    text_generator: TextGenerator,
    params: Params,
    questions: Sequence[Question],
    answers: Sequence[Sequence[int]],
    metrics: Mapping[str, TaskMetrics],
    stopped: Stopped,
) -> list[dict[str, float]] | None:
    """Return the log-likelihoods that the metrics of each question's task take.

    Args:
        text_generator: The model.
        params: Its weights.
        questions: The questions.
        answers: The ids of the answer to each.
        metrics: The own metrics of each task.
        stopped: Whether to give up before the next batch; then nothing is returned.
    """
    rows: list[Continuation] = []
    names: list[tuple[int, str]] = []  # The question and the name of each row's score.
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        of_task = metrics[question.task]
        if of_task.needs_target_scores:
            rows.append(_target(text_generator, question, of_task.is_tokenized))
            names.append((i, "target_score"))
        if of_task.needs_answer_scores:
            prefix_length = int(question.store.prefix_lengths[question.index])
            rows.append(Continuation(question.prompt, answer, prefix_length))
            names.append((i, "answer_score"))
    found: list[dict[str, float]] = [{} for _ in questions]
    if rows:
        scores = log_likelihoods(text_generator.model, params, text_generator.config, rows, stopped)
        if len(scores) < len(rows):
            return None
        for row, (i, name) in enumerate(names):
            found[i][name] = scores[row]
    return found


def _target(text_generator: TextGenerator, question: Question, is_tokenized: bool) -> Continuation:
    """The target of an example, with its loss weights, after what it is predicted from.

    Of a conversation that is its last trained answer; of a task that tokenizes itself, all of its
    targets from the first trained one on.
    """
    store = question.store
    i = question.index
    start = int(store.prefix_lengths[i] if is_tokenized else store.prompt_lengths[i])
    return _weighted(text_generator, question, start)


def _weighted(text_generator: TextGenerator, question: Question, start: int) -> Continuation:
    """Return an example with its loss weights, for a decoder those from `start` on.

    Of a pair it is the chosen side.
    """
    store = question.store
    i = question.index
    _, tokens, weights = store.variants[0].sides(i)[0]
    prefix_length = int(store.prefix_lengths[i])
    if text_generator.config.model.architecture == "encoder_decoder":
        return Continuation(question.prompt, tokens.tolist(), prefix_length, weights.tolist())
    prompt, answer = np.split(tokens, [start])
    return Continuation(prompt.tolist(), answer.tolist(), prefix_length, weights[start:].tolist())


class LossSums(NamedTuple):
    """The sums that a loss is the ratio of."""

    nll: float = 0.0  # The sum of weight * negative log-probability.
    weight: float = 0.0

    def plus(self, other: "LossSums") -> "LossSums":
        """Return the sums over the tokens of both."""
        return LossSums(self.nll + other.nll, self.weight + other.weight)

    @property
    def loss(self) -> float:
        """Plain NLL per trained token; NaN if there is none."""
        return self.nll / self.weight if self.weight > 0 else math.nan


TaskLosses = dict[tuple[str, bool], LossSums]  # By task, and whether the example has choices.


def task_losses(
    text_generator: TextGenerator, params: Params, questions: Sequence[Question], stopped: Stopped
) -> TaskLosses | None:
    """Return the loss sums of the examples: what training would compute for them.

    All trained tokens of an example count, such as those of every answer of a conversation.

    Args:
        text_generator: The model.
        params: Its weights.
        questions: The examples.
        stopped: Whether to give up before the next batch; then nothing is returned.
    """
    rows = [_weighted(text_generator, question, 1) for question in questions]
    scores = log_likelihoods(text_generator.model, params, text_generator.config, rows, stopped)
    if len(scores) < len(rows):
        return None
    losses: TaskLosses = {}
    for i, (question, row) in enumerate(zip(questions, rows, strict=True)):
        assert row.weights is not None
        of_one = LossSums(-scores[i], float(np.sum(row.weights, dtype=np.float64)))
        kind = (question.task, bool(question.choices))
        losses[kind] = losses.get(kind, LossSums()).plus(of_one)
    return losses


def add_losses(result: dict[str, Any], losses: TaskLosses, mixture: Mixture) -> None:
    """Add "loss" to the scores of each task, of each cluster, and overall.

    The losses of several tasks are one ratio of sums, not the mean of ratios.

    Args:
        result: What `score` returned.
        losses: What `task_losses` returned.
        mixture: The tasks with their stores, which know the clusters.
    """
    clusters: dict[str, LossSums] = {}
    overall = LossSums()
    for task, store in zip(mixture.tasks, mixture.stores, strict=True):
        ranked = losses.get((task, True), LossSums())
        free = losses.get((task, False), LossSums())
        of_task = ranked.plus(free)
        overall = overall.plus(of_task)
        if cluster := store.manifest.get("cluster"):
            clusters[cluster] = clusters.get(cluster, LossSums()).plus(of_task)
        parts = {task: of_task, f"{task} (choices)": ranked, f"{task} (free)": free}
        for part, sums in parts.items():
            if part in result["tasks"]:
                result["tasks"][part]["loss"] = sums.loss
    for cluster, sums in clusters.items():
        result["clusters"][cluster]["loss"] = sums.loss
    result["overall"]["loss"] = overall.loss
