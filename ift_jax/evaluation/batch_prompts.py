"""Answers to the prompts of a file, in its order, in a file that can be continued."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ift_jax.decoding import Generator, Options
from ift_jax.errors import UserError
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.text.records import parse_record

Prompt = tuple[str, dict[str, Any]]  # Its place and its fields.
WINDOW = 8  # Batches of prompts that are sorted by length and answered before they are written.
_ANSWER_FIELDS = ("answer", "stopped", "new_tokens")


def read_prompts(path: str) -> Iterator[Prompt]:
    """The objects of a JSON-lines file, each with its `file:line`; UserError where one is none."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [(f"{path}:{n}", line) for n, line in enumerate(file, start=1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for where, line in lines:
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON: {error.msg}") from error
        if not isinstance(fields, dict):
            raise UserError(f"{where}: expected a JSON object with 'inputs' or 'messages'")
        yield where, fields


def prompt_ids(
    text_generator: TextGenerator, prompts: Sequence[Prompt], n_new: int
) -> list[list[int]]:
    """The ids of each prompt, `inputs` or `messages` that end before an answer.

    UserError: neither of them, or too long for the model's `max_length` with `n_new` tokens.
    """
    longest = getattr(text_generator.model.config, "max_length", 0)
    ids = []
    for where, fields in prompts:
        record = parse_record(fields, where, prompt_only=True)
        ids.append(text_generator.formatter.prompt(record).tolist())
        if longest and (n := len(ids[-1])) + n_new > longest:
            raise UserError(
                f"{where}: {n} tokens of prompt and --max-new-tokens {n_new}: expected at most "
                f"the model's max_length {longest} together"
            )
    return ids


def answer_windows(
    text_generator: TextGenerator,
    generator: Generator,
    prompts: Sequence[Prompt],
    options: Options,
    *,
    batch_size: int,
    done: int = 0,
) -> Iterator[list[dict[str, Any]]]:
    """The answers from prompt number `done` on: its fields and `_ANSWER_FIELDS`, by windows.

    A window that is partly done is made again as a whole: even its rounding is then that of a
    run without a break. UserError, as `prompt_ids`, before anything is generated.
    """
    ids = prompt_ids(text_generator, prompts, options.max_new_tokens)
    size, text, stopped = WINDOW * batch_size, text_generator.text, text_generator.stopped
    for start in range(done - done % size, len(prompts) if done < len(prompts) else 0, size):
        window = slice(start, start + size)
        outputs = generator.generate(ids[window], options, batch_size=batch_size, first_index=start)
        answers = [
            fields | {"answer": text(o), "stopped": stopped(o), "new_tokens": len(o)}
            for (_, fields), o in zip(prompts[window], outputs, strict=True)
        ]
        yield answers[max(done - start, 0) :]


def settings(
    text_generator: TextGenerator, generator: Generator, options: Options, batch_size: int
) -> dict[str, Any]:
    """Everything but the prompts that decides what the answers are, flat and in JSON's types."""
    return {
        "weights": generator.fingerprint(),
        "format": text_generator.formatter.fingerprint,
        "stop strings": list(text_generator.stops.strings),
        "stop ids": list(text_generator.stops.ids),
        "batch_size": batch_size,
        **dataclasses.asdict(options),
        **{f"model.{k}": v for k, v in dataclasses.asdict(text_generator.model.config).items()},
    }


def continue_file(path: str, now: dict[str, Any], prompts: Sequence[Prompt]) -> int:
    """How many answers of these prompts a file holds already; a half-written line is cut off.

    UserError: its settings, in `<path>.settings.json`, or its prompts were others.
    """
    beside, remedy = Path(f"{path}.settings.json"), "remove it or name another --output"
    try:
        if not os.path.exists(path) or not os.path.getsize(path):
            beside.write_text(json.dumps(now, indent=2), encoding="utf-8")
            return 0
        if not beside.exists():
            raise UserError(f"{path}: exists, and there is no {beside} to continue it; {remedy}")
        before = json.loads(beside.read_text(encoding="utf-8"))
        for name in now | before:
            if (new := now.get(name)) != (old := before.get(name)):
                change = f"{name} {old!r}, now it is {new!r}"
                raise UserError(f"{path}: was begun with {change}; {remedy}")
        done, end = 0, 0
        with open(path, "rb+") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                if done == len(prompts) or not _answers(json.loads(line), prompts[done][1]):
                    raise UserError(f"{path}:{done + 1}: is no answer to these prompts; {remedy}")
                done, end = done + 1, end + len(line)
            lines.truncate(end)
        return done
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be continued: {error}; {remedy}") from error


def append(path: str, answers: Sequence[dict[str, Any]]) -> None:
    """Writes answers behind those that are there, and makes sure that they stay."""
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers)
        file.flush()
        os.fsync(file.fileno())


def _answers(line: Any, prompt: dict[str, Any]) -> bool:
    answer = dict.fromkeys(_ANSWER_FIELDS)
    return isinstance(line, dict) and line | answer == prompt | answer
