"""Answers to unseen examples, generated or ranked, scored with each task's own metrics."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore
from ift_jax.evaluation.log_likelihoods import Continuation, log_likelihoods
from ift_jax.evaluation.rank_choices import Choices, log_probs
from ift_jax.evaluation.scoring import Scored, score
from ift_jax.evaluation.task_metrics import TaskMetrics, task_metrics
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.metrics import ModelOutput
from ift_jax.models.model import Params


@dataclasses.dataclass(frozen=True)
class Question:
    """An example to answer."""

    task: str
    store: TokenStore
    index: int  # The index of the example in its store.
    prompt: list[int]
    choices: list[tuple[str, list[int]]]  # Text and ids of each; empty if the answer is free.


class Answer(NamedTuple):
    """An answer to a question.

    Attributes:
        fields: What is told about it: "answer", and what `generate` or `rank` found.
        ids: Its ids, the stop token included.
    """

    fields: dict[str, Any]
    ids: list[int]


def evaluate(
    text_generator: TextGenerator, params: Params, mixture: Mixture, stopped: Stopped = never
) -> dict[str, Any]:
    """Answers the first examples of every task, and scores the answers.

    An example with choices is answered with the likeliest one (`rank_choices.log_probs`), any
    other one by greedy generation.

    Args:
        text_generator: the model; `config.evaluation` says how many examples per task, and how.
        params: its weights.
        mixture: tasks with their stores, which should hold nothing that was trained on.
        stopped: whether to end before the next batch.

    Returns:
        `tasks`, `overall`, `groups` and `failures` as `score` gives them, and `answers`, a dict per
        example: "task", "index" (the record's index in the source), "prompt", "references", what
        `generate` or `rank` found, and, where a metric takes them, "target_score" and
        "answer_score", the log-likelihoods of the target and of the answer. `complete` is whether
        it came to its end; if it was stopped, there are only the answers so far.
    """
    metrics = task_metrics(mixture, text_generator.config)
    questions = ask(text_generator, mixture)
    free = [i for i, question in enumerate(questions) if not question.choices]
    with_choices = [i for i, question in enumerate(questions) if question.choices]
    found: dict[int, Answer] = {}
    if free:
        generated = generate(text_generator, params, [questions[i] for i in free], stopped)
        found |= {free[i]: answer for i, answer in generated.items()}
    if with_choices:
        ranked = rank(text_generator, params, [questions[i] for i in with_choices], stopped)
        found |= {with_choices[i]: answer for i, answer in ranked.items()}
    answered = [questions[i] for i in sorted(found)]
    given = [found[i] for i in sorted(found)]
    likelihoods = None
    if len(answered) == len(questions):
        likelihoods = _likelihoods(text_generator, params, questions, given, metrics, stopped)
    answers = [
        {
            "task": question.task,
            "index": int(question.store.indices[question.index]),
            "prompt": text_generator.tokenizer.decode(question.prompt),
            "references": list(question.store.references(question.index)),
            **answer.fields,
            **scores,
        }
        for question, answer, scores in zip(
            answered, given, likelihoods or [{} for _ in answered], strict=True
        )
    ]
    if likelihoods is None:
        return {"complete": False, "answers": answers}
    scored = [
        Scored(fields["task"], _model_output(fields, answer), fields.get("stopped", False))
        for fields, answer in zip(answers, given, strict=True)
    ]
    return {**score(mixture, scored, metrics), "complete": True, "answers": answers}


def ask(text_generator: TextGenerator, mixture: Mixture) -> list[Question]:
    """The first `config.evaluation.examples` examples of every task."""
    most = text_generator.config.evaluation.examples
    questions = []
    for task, store in zip(mixture.tasks, mixture.stores, strict=True):
        for index in range(min(most, len(store))):
            prompt = text_generator.prompt(store, index)
            questions.append(Question(task, store, index, prompt, store.choices(index)))
    return questions


def generate(
    text_generator: TextGenerator,
    params: Params,
    questions: Sequence[Question],
    stopped: Stopped = never,
) -> dict[int, Answer]:
    """Generates an answer to each question, greedily, unless it is stopped before.

    Returns:
        By the place of the question: "answer" and "stopped", whether it ended with a stop token or
        string rather than at `max_new_tokens`.
    """
    prompts = [question.prompt for question in questions]
    outputs = text_generator.generate(params, prompts, stopped)
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
    scores = log_probs(text_generator.model, params, text_generator.config, asked, stopped)
    answers = {}
    for i, of_choices in scores.items():
        texts = [text for text, _ in questions[i].choices]
        text, ids = questions[i].choices[int(np.argmax(of_choices))]
        answers[i] = Answer({"answer": text, "choices": texts, "scores": of_choices}, ids)
    return answers


def _likelihoods(
    text_generator: TextGenerator,
    params: Params,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    metrics: Mapping[str, TaskMetrics],
    stopped: Stopped,
) -> list[dict[str, float]] | None:
    """The log-likelihoods that the metrics of each question's task take; None if it is stopped."""
    rows: list[Continuation] = []
    names: list[tuple[int, str]] = []  # The question and the name of each row's score.
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        of_task = metrics[question.task]
        if of_task.needs_target_scores:
            rows.append(_target(text_generator, question, of_task.is_tokenized))
            names.append((i, "target_score"))
        if of_task.needs_answer_scores:
            prefix_length = int(question.store.prefix_lengths[question.index])
            rows.append(Continuation(question.prompt, answer.ids, prefix_length))
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
    tokens, weights = store.tokens_and_weights(i)
    prefix_length = int(store.prefix_lengths[i])
    if text_generator.config.model.architecture == "encoder_decoder":
        return Continuation(question.prompt, tokens.tolist(), prefix_length, weights.tolist())
    start = prefix_length if is_tokenized else int(store.prompt_lengths[i])
    prompt, answer = np.split(tokens, [start])
    return Continuation(prompt.tolist(), answer.tolist(), prefix_length, weights[start:].tolist())


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
