"""Answers to unseen examples, generated or ranked, scored with each task's own metrics."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore
from ift_jax.evaluation.rank_choices import Choices, log_probs
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.metrics import exact_match, majority_baseline, metric_by_name
from ift_jax.models.model import Params

Answer = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Question:
    """An example to answer."""

    task: str
    store: TokenStore
    index: int  # The index of the example in its store.
    prompt: list[int]
    choices: list[tuple[str, list[int]]]  # Text and ids of each; empty if the answer is free.


def evaluate(text_generator: TextGenerator, params: Params, mixture: Mixture) -> dict[str, Any]:
    """Answers the first examples of every task, and scores the answers.

    An example with choices is answered with the likeliest one (`rank_choices.log_probs`), any
    other one by greedy generation.

    Args:
        text_generator: the model; `config.evaluation` says how many examples per task, and how.
        params: its weights.
        mixture: tasks with their stores, which should hold nothing that was trained on.

    Returns:
        `tasks`, `overall` and `groups` as `score` gives them, and `answers`, a dict per example:
        "task", "index" (the record's index in the source), "prompt", "references", and what
        `generate` or `rank` found.
    """
    questions = ask(text_generator, mixture)
    free = [i for i, question in enumerate(questions) if not question.choices]
    with_choices = [i for i, question in enumerate(questions) if question.choices]
    found: dict[int, Answer] = {}
    if free:
        generated = generate(text_generator, params, [questions[i] for i in free])
        found |= zip(free, generated, strict=True)
    if with_choices:
        ranked = rank(text_generator, params, [questions[i] for i in with_choices])
        found |= zip(with_choices, ranked, strict=True)
    answers = [
        {
            "task": question.task,
            "index": int(question.store.indices[question.index]),
            "prompt": text_generator.tokenizer.decode(question.prompt),
            "references": list(question.store.references(question.index)),
            **found[i],
        }
        for i, question in enumerate(questions)
    ]
    return {**score(mixture, answers), "answers": answers}


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
    text_generator: TextGenerator, params: Params, questions: Sequence[Question]
) -> list[Answer]:
    """Generates an answer to each question, greedily.

    Returns:
        For each question "answer" and "stopped", whether it ended with a stop token or string
        rather than at `max_new_tokens`.
    """
    outputs = text_generator.generate(params, [question.prompt for question in questions])
    return [
        {"answer": text_generator.text(output), "stopped": text_generator.stopped(output)}
        for output in outputs
    ]


def rank(
    text_generator: TextGenerator, params: Params, questions: Sequence[Question]
) -> list[Answer]:
    """Chooses the likeliest choice of each question.

    Returns:
        For each question "answer", the texts of its "choices", and their "scores".
    """
    asked = [
        Choices(
            prompt=question.prompt,
            answers=[ids for _, ids in question.choices],
            prefix_length=int(question.store.prefix_lengths[question.index]),
        )
        for question in questions
    ]
    scores = log_probs(text_generator.model, params, text_generator.config, asked)
    answers = []
    for question, of_choices in zip(questions, scores, strict=True):
        texts = [text for text, _ in question.choices]
        likeliest = texts[int(np.argmax(of_choices))]
        answers.append({"answer": likeliest, "choices": texts, "scores": of_choices})
    return answers


def score(mixture: Mixture, answers: Sequence[Answer]) -> dict[str, Any]:
    """Scores answers with the metrics of their tasks.

    Returns:
        `tasks`: name -> {"examples"; "exact_match", or "accuracy" if choices were ranked;
        "baseline", the score of giving every example the task's most common answer; "stopped",
        the share of generated answers that ended by themselves; the task's own metrics}.
        `overall`: the plain means over tasks. `groups`: for each data set with several tasks, such
        as one per template, the quartiles of exact match over them.
    """
    tasks: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[float]] = {}
    for name, store, metrics in zip(mixture.tasks, mixture.stores, mixture.metric_fns, strict=True):
        of_task = [answer for answer in answers if answer["task"] == name]
        if not of_task:
            continue
        tasks[name] = _score_task(of_task, metrics)
        if group := store.manifest.get("group"):
            groups.setdefault(group, []).append(_exact_match(of_task))
    quartiles = {group: _quartiles(scores) for group, scores in groups.items() if len(scores) > 1}
    return {"tasks": tasks, "overall": _overall(tasks.values()), "groups": quartiles}


def _exact_match(answers: Sequence[Answer]) -> float:
    references = [answer["references"] for answer in answers]
    return exact_match(references, [answer["answer"] for answer in answers])["exact_match"]


def _score_task(answers: Sequence[Answer], metrics: Sequence[str]) -> dict[str, Any]:
    references = [answer["references"] for answer in answers]
    texts = [answer["answer"] for answer in answers]
    is_ranked = "scores" in answers[0]
    scores: dict[str, Any] = {
        "examples": len(answers),
        "accuracy" if is_ranked else "exact_match": _exact_match(answers),
        "baseline": majority_baseline(references),
    }
    if not is_ranked:
        scores["stopped"] = sum(answer["stopped"] for answer in answers) / len(answers)
    for name in metrics:
        if is_ranked and name.endswith(":exact_match"):
            continue  # That is the accuracy.
        scores |= metric_by_name(name)(references, texts)
    return scores


def _overall(tasks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    tasks = list(tasks)
    overall: dict[str, Any] = {"examples": sum(scores["examples"] for scores in tasks)}
    for metric in sorted({metric for scores in tasks for metric in scores} - {"examples"}):
        values = [scores[metric] for scores in tasks if metric in scores]
        overall[metric] = sum(values) / len(values)
    return overall


def _quartiles(scores: Sequence[float]) -> dict[str, Any]:
    lower, median, upper = np.percentile(scores, (25, 50, 75)).tolist()
    return {"lower": lower, "median": median, "upper": upper, "tasks": len(scores)}


_COLUMNS = {
    "exact_match": "exact match",
    "accuracy": "accuracy of choice",
    "baseline": "commonest answer",
    "rouge_l": "ROUGE-L",
}


def table(title: str, result: Mapping[str, Any]) -> list[str]:
    """The scores as lines of text: a line per task, the means, then data sets over templates."""
    rows = [*sorted(result["tasks"].items()), ("mean over tasks", result["overall"])]
    width = max(len(name) for name, _ in rows)
    columns = {
        key: head for key, head in _COLUMNS.items() if any(key in scores for _, scores in rows)
    }
    lines = [title, "  ".join(("", f"{'task':<{width}}", "examples", *columns.values()))]
    for name, scores in rows:
        cells = [
            f"{f'{scores[key]:.3f}' if key in scores else '':>{len(head)}}"
            for key, head in columns.items()
        ]
        lines.append("  ".join(("", f"{name:<{width}}", f"{scores['examples']:>8}", *cells)))
    for name, quartiles in sorted(result["groups"].items()):
        lines.append(
            f"  {name}: median {quartiles['median']:.3f}, quartiles {quartiles['lower']:.3f} to "
            f"{quartiles['upper']:.3f}, over {quartiles['tasks']} templates"
        )
    return lines
