"""Answers to unseen examples, generated or ranked, scored with each task's own metrics."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.finished_batches import FinishedAnswers, FinishedBatches
from ift_jax.evaluation.questions import Choose, Question, ask, first
from ift_jax.evaluation.rank_choices import Choices, log_probs
from ift_jax.evaluation.scoring import Scored, score
from ift_jax.evaluation.targets import add_losses, likelihoods, task_losses
from ift_jax.evaluation.task_metrics import TaskMetrics, task_metrics
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.metrics import ModelOutput
from ift_jax.models.model import Params
from ift_jax.sharding.checksums import checksums


class Answer(NamedTuple):
    """An answer to a question.

    Attributes:
        fields: What is told about it: "answer", and what `generate` or `rank` found.
        ids: Its ids, the stop token included.
    """

    fields: dict[str, Any]
    ids: list[int]


class Plan(NamedTuple):
    """What an evaluation asks, and how the answers are scored.

    Attributes:
        mixture: The tasks with their stores.
        questions: The examples that are answered.
        metrics: The own metrics of each task, which remember the examples that they have read.
    """

    mixture: Mixture
    questions: list[Question]
    metrics: Mapping[str, TaskMetrics]


def plan(text_generator: TextGenerator, mixture: Mixture, choose: Choose | None = None) -> Plan:
    """Choose the examples that are answered.

    Args:
        text_generator: Knows the format and the config.
        mixture: Tasks with their stores, which should hold nothing that was trained on.
        choose: Which examples of each task; by default the first `evaluation.examples`.
    """
    config = text_generator.config
    choose = choose or first(config.evaluation.examples)
    return Plan(mixture, ask(text_generator, mixture, choose), task_metrics(mixture, config))


def evaluation_settings(
    text_generator: TextGenerator, params: Params, which: str
) -> dict[str, Any]:
    """Return all that determines the answers besides the questions; every process calls this.

    Args:
        text_generator: Knows the format and the config.
        params: The model's parameters.
        which: The mixture, "eval" or "heldout".
    """
    sums = {name: np.asarray(of_part).tolist() for name, of_part in checksums({"": params}).items()}
    return {
        "weights": sums,
        "which": which,
        "format": text_generator.formatter.fingerprint,
        "stop ids": list(text_generator.stops.ids),
        "evaluation": dataclasses.asdict(text_generator.config.evaluation),
        "model": dataclasses.asdict(text_generator.config.model),
    }


def evaluate(
    text_generator: TextGenerator,
    params: Params,
    planned: Plan,
    stopped: Stopped = never,
    *,
    finished: FinishedAnswers | None = None,
    with_loss: bool = False,
) -> dict[str, Any]:
    """Answers questions about every task, and scores the answers.

    An example with choices is answered with the likeliest one (`rank_choices.log_probs`), any
    other one by greedy generation.

    Args:
        text_generator: the model; `config.evaluation` says how answers are generated.
        params: its weights.
        planned: what is asked.
        stopped: whether to end before the next batch, block of tokens, or metric.
        finished: has the answers of an evaluation that was stopped, and keeps new ones.
        with_loss: whether the loss of the targets is computed besides.

    Returns:
        What `score` returns (if `with_loss`, each task has "loss", NLL per trained token, besides,
        and "overall" and each cluster have that of all their tokens), and `answers`, a dict per
        example: "task", "index" (the record's index in the source), "prompt", "references", what
        `generate` or `rank` found, "metrics", the scores of this example by the metrics that are
        means over examples, and, where a metric takes them, "target_score" and "answer_score", the
        log-likelihoods of the target and of the answer. `complete` is whether it came to its end;
        if it was stopped, there are only the answers so far.
    """
    questions = planned.questions
    given = _answers(text_generator, params, questions, stopped, finished)
    answered = [questions[i] for i in sorted(given)]
    fields = [_fields(text_generator, questions[i], given[i]) for i in sorted(given)]
    incomplete = {"complete": False, "answers": fields}
    if len(answered) < len(questions):
        return incomplete
    found = likelihoods(
        text_generator,
        params,
        questions,
        [given[i].ids for i in range(len(questions))],
        planned.metrics,
        stopped,
    )
    losses = task_losses(text_generator, params, questions, stopped) if with_loss else {}
    if found is None or losses is None:
        return incomplete
    fields = [of_one | scores for of_one, scores in zip(fields, found, strict=True)]
    scored = [
        Scored(of_one["task"], _model_output(of_one, given[i]), of_one.get("stopped", False))
        for i, of_one in enumerate(fields)
    ]
    result = score(planned.mixture, scored, planned.metrics, stopped)
    if result is None:
        return incomplete
    by_example = result.pop("by_example")
    answers = [
        of_one | {"metrics": metrics} for of_one, metrics in zip(fields, by_example, strict=True)
    ]
    if with_loss:
        add_losses(result, losses, planned.mixture)
    return {**result, "complete": True, "answers": answers}


def _answers(
    text_generator: TextGenerator,
    params: Params,
    questions: Sequence[Question],
    stopped: Stopped,
    finished: FinishedAnswers | None,
) -> dict[int, Answer]:
    """Return the answers by the place of their question; some are missing if it was stopped."""
    free = [i for i, question in enumerate(questions) if not question.choices]
    with_choices = [i for i, question in enumerate(questions) if question.choices]
    found: dict[int, Answer] = {}
    if free:
        of_free = [questions[i] for i in free]
        of_file = finished and finished.generated
        generated = generate(text_generator, params, of_free, stopped, of_file)
        found |= {free[i]: answer for i, answer in generated.items()}
    if with_choices:
        of_choices = [questions[i] for i in with_choices]
        of_file = finished and finished.ranked
        ranked = rank(text_generator, params, of_choices, stopped, of_file)
        found |= {with_choices[i]: answer for i, answer in ranked.items()}
    return found


def _fields(text_generator: TextGenerator, question: Question, answer: Answer) -> dict[str, Any]:
    """Return what is told about an answer."""
    return {
        "task": question.task,
        "index": int(question.store.indices[question.index]),
        "prompt": text_generator.tokenizer.decode(question.prompt),
        "references": list(question.store.references(question.index)),
        **answer.fields,
    }


def generate(
    text_generator: TextGenerator,
    params: Params,
    questions: Sequence[Question],
    stopped: Stopped = never,
    finished: FinishedBatches | None = None,
) -> dict[int, Answer]:
    """Generates an answer to each question, greedily, unless it is stopped before.

    Returns:
        By the place of the question: "answer" and "stopped", whether it ended with a stop token or
        string rather than at `max_new_tokens`.
    """
    prompts = [question.prompt for question in questions]
    outputs = text_generator.generate(params, prompts, stopped, finished)
    return {
        i: Answer(
            {"answer": text_generator.text(output), "stopped": text_generator.stopped(output)},
            output,
        )
        for i, output in outputs.items()
    }


def rank(
    text_generator: TextGenerator,
    params: Params,
    questions: Sequence[Question],
    stopped: Stopped = never,
    finished: FinishedBatches | None = None,
) -> dict[int, Answer]:
    """Chooses the likeliest choice of each question, unless it is stopped before.

    Returns:
        By the place of the question: "answer", the texts of its "choices", and their "scores".
    """
    asked = [
        Choices(
            prompt=question.prompt,
            answers=[ids for _, ids in question.choices],
            prefix_length=int(question.store.prefix_lengths[question.index]),
        )
        for question in questions
    ]
    scores = log_probs(
        text_generator.model, params, text_generator.config, asked, stopped, finished
    )
    answers = {}
    for i, of_choices in scores.items():
        texts = [text for text, _ in questions[i].choices]
        text, ids = questions[i].choices[int(np.argmax(of_choices))]
        answers[i] = Answer({"answer": text, "choices": texts, "scores": of_choices}, ids)
    return answers


def _model_output(fields: Mapping[str, Any], answer: Answer) -> ModelOutput:
    likelihoods = {
        name: fields[name] for name in ("answer_score", "target_score") if name in fields
    }
    return ModelOutput(
        index=fields["index"],
        references=tuple(fields["references"]),
        answer=fields["answer"],
        answer_ids=tuple(answer.ids),
        is_choice="choices" in fields,
        **likelihoods,
    )
