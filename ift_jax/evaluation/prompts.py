"""Answers to the prompts of a file."""

import json
from collections.abc import Iterator
from typing import Any

from ift_jax.checkpoint.trained import Trained
from ift_jax.errors import UserError
from ift_jax.evaluation.generation import Answerer
from ift_jax.text.records import parse_record


def read_prompts(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON-lines file, each with its `file:line`.

    Raises:
        UserError: no such file, or a line that is not a JSON object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                try:
                    fields = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"{where}: not JSON: {error.msg}") from error
                if not isinstance(fields, dict):
                    raise UserError(f"{where}: expected a JSON object with 'inputs' or 'messages'")
                yield where, fields
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def answer_prompts(
    trained: Trained, prompts: list[tuple[str, dict[str, Any]]], **options: Any
) -> list[dict[str, Any]]:
    """Each prompt's fields with `answer`, `stopped` and `new_tokens` added.

    Args:
        trained: the model.
        prompts: places and fields: `inputs`, or `messages` that end before an answer.
        **options: of `ift_jax.decoding.generate.generate`.

    Raises:
        UserError: a prompt that is not of either form.
    """
    answerer = Answerer(trained.config, trained.tokenizer, trained.model)
    records = [parse_record(fields, where, prompt_only=True) for where, fields in prompts]
    ids = [answerer.formatter.prompt(record).tolist() for record in records]
    outputs = answerer.generate(trained.params, ids, **options)
    return [
        fields
        | {
            "answer": answerer.text(output),
            "stopped": answerer.stopped(output),
            "new_tokens": len(output),
        }
        for (_, fields), output in zip(prompts, outputs, strict=True)
    ]
