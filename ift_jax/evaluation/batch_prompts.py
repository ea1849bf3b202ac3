"""Answers to the prompts of a file, in its order, in an output file that can be continued."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ift_jax.config.schema import DecoderConfig, ModelConfig
from ift_jax.decoding import Completion, Generator, Options, Output, Request, TokenLogprob
from ift_jax.errors import UserError
from ift_jax.evaluation.answer_settings import REMEDY, begin_or_check
from ift_jax.evaluation.finished_batches import FinishedBatches
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.json_reader import parse_json
from ift_jax.io.stop_signals import Stopped, never, until
from ift_jax.sources.json_lines import read_lines
from ift_jax.text.records import Record
from ift_jax.text.rows.parse_record import parse_record
from ift_jax.text.tokenizers.base import Tokenizer

WINDOW = 8  # Batches of prompts that are sorted by length and answered before they are written.
_ANSWER_FIELDS = (
    "answer",
    "stopped",
    "new_tokens",
    "score",
    "logprobs",
    "answers",
    "prompt_logprobs",
)


class Prompt(NamedTuple):
    """A record to answer."""

    where: str  # Its place for messages, such as "prompts.jsonl:3".
    fields: dict[str, Any]  # As they were given; they are written with the answer.
    record: Record


def read_prompts(path: str) -> list[Prompt]:
    """The objects of a JSON-lines file, plain or gzip; empty lines are skipped.

    Raises:
        UserError: the file cannot be read or holds no prompt, or a line is none.
    """
    try:
        prompts = [checked_prompt(line.place, line.parse()) for line in read_lines(path)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not prompts:
        raise UserError(f"{path}: holds no prompt; expected one JSON object per line")
    return prompts


def checked_prompt(where: str, fields: dict[str, Any]) -> Prompt:
    """Checks all of a record that is to be answered, so that nothing can fail after that.

    Args:
        where: its place, for messages.
        fields: a record of any layout that training reads, with or without its answer.

    Raises:
        UserError: it is no prompt of a layout that training reads, or it cannot be written again
            together with its answer.
    """
    record = parse_record(fields, where, prompt_only=True)
    for name, value in fields.items():
        if name in _ANSWER_FIELDS:
            raise UserError(
                f"{where}: field {name!r}: is written beside the answer; expected another name"
            )
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{where}: field {name!r}: holds half of a surrogate pair, which is no text"
            ) from None
    return Prompt(where, fields, record)


def prompt_ids(
    text_generator: TextGenerator,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    max_prompt_tokens: int = 0,
) -> list[list[int]]:
    """The ids of each prompt: `inputs`, or `messages` that end before an answer.

    Args:
        text_generator: the model's format.
        prompts: the prompts.
        max_new_tokens: most tokens of an answer.
        max_prompt_tokens: most tokens of a prompt; 0: what the model was trained on, if it has no
            maximum of its own.

    Raises:
        UserError: a prompt does not fit the model together with its answer, or is too long.
    """
    model = text_generator.model.config
    positions = model.max_length if isinstance(model, DecoderConfig) else 0
    limit = max_prompt_tokens or (0 if positions else _trained_prompt_length(text_generator))
    ids = []
    for where, _, record in prompts:
        of_prompt = text_generator.formatter.prompt(record).tolist()
        if positions and len(of_prompt) + max_new_tokens > positions:
            raise UserError(
                f"{where}: {len(of_prompt)} tokens of prompt and --max-new-tokens "
                f"{max_new_tokens}: expected at most the model's max_length {positions} together"
            )
        if limit and len(of_prompt) > limit:
            why = "--max-prompt-tokens" if max_prompt_tokens else "the most it was trained on"
            cure = "" if max_prompt_tokens else "; --max-prompt-tokens N takes longer ones"
            raise UserError(
                f"{where}: {len(of_prompt)} tokens of prompt: expected at most {limit}, {why}{cure}"
            )
        ids.append(of_prompt)
    return ids


def _trained_prompt_length(text_generator: TextGenerator) -> int:
    """The longest prompt that a run can have trained on; 0 if the model is not that of a run."""
    config = text_generator.config
    if not config.data.mixture:
        return 0
    lengths = config.row_lengths
    return lengths.encoder or lengths.decoder - 1


def requests_of(
    text_generator: TextGenerator,
    prompts: Sequence[Prompt],
    ids: Sequence[Sequence[int]],
    options: Options,
) -> list[Request]:
    """What is asked for each prompt.

    What is sampled depends on the seed and the prompt's number, or on the line's own field "seed"
    alone.

    Args:
        text_generator: the model's format.
        prompts: the prompts.
        ids: the ids of each (`prompt_ids`).
        options: how answers are generated.

    Raises:
        UserError: the model cannot answer one of them, or answers are sampled and a line's "seed"
            is no whole number.
    """
    requests = []
    for number, (prompt, of_prompt) in enumerate(zip(prompts, ids, strict=True)):
        request = Request(of_prompt, options, number)
        if options.sampling.temperature > 0 and "seed" in prompt.fields:
            seed = prompt.fields["seed"]
            if type(seed) is not int:
                raise UserError(
                    f"{prompt.where}: field 'seed': expected a whole number, which seeds the "
                    f"sampling of this line; found {json.dumps(seed)[:80]}"
                )
            request = Request(of_prompt, dataclasses.replace(options, seed=seed))
        try:
            text_generator.check(request)
        except UserError as error:
            raise UserError(f"{prompt.where}: {error}") from error
        requests.append(request)
    return requests


def answer_windows(
    text_generator: TextGenerator,
    generator: Generator,
    prompts: Sequence[Prompt],
    requests: Sequence[Request],
    *,
    batch_size: int,
    done: int = 0,
    finished: FinishedBatches | None = None,
    stopped: Stopped = never,
) -> Iterator[list[dict[str, Any]]]:
    """The answers from prompt number `done` on, window by window.

    A batch that is done in part is generated again as a whole, so that even its rounding is that
    of a run without interruption.

    Args:
        text_generator: the model's format.
        generator: the model.
        prompts: the prompts.
        requests: what is asked for each (`requests_of`).
        batch_size: rows that are decoded together; see `Generator.complete`.
        done: how many prompts are answered already.
        finished: keeps the answers of batches until their window is yielded.
        stopped: whether to end before the next batch. The last window then holds the answers up to
            the first one that is missing.

    Yields:
        The fields of each prompt of a window, with those of `answer_fields`.
    """
    if done >= len(prompts):
        return
    size = WINDOW * batch_size
    for start in range(done - done % size, len(prompts), size):
        window = slice(start, start + size)
        ids = [request.prompt for request in requests[window]]
        known = finished.of_window(start, ids) if finished else {}
        batches = generator.complete_batches(requests[window], batch_size=batch_size, done=known)
        found = dict(known)
        for batch in until(stopped, batches):
            new = {
                i: answer_fields(output, text_generator.tokenizer)
                for i, output in batch.items()
                if i not in known
            }
            found |= new
            if finished:
                finished.add(start, ids, new)
        answers = []
        for i, prompt in enumerate(prompts[window]):
            if i not in found:
                break
            answers.append(prompt.fields | found[i])
        if unwritten := answers[max(done - start, 0) :]:
            yield unwritten
        if len(answers) < len(prompts[window]):
            return
        if finished:
            finished.clear()


def answer_fields(output: Output, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a line of output says, in JSON's types.

    Returns:
        Of one answer "answer", "stopped" (whether it ended with a stop token or string) and
        "new_tokens" (their number), after beam search "score", and "logprobs" if they were asked
        for; of several, "answers" with these fields of each. "prompt_logprobs" if they were asked
        for. Log-probabilities are a list of an object a token: "id", "token" (its text), "logprob"
        and, of the likeliest tokens at its place, "top_logprobs"; null for a prompt's first token.
    """

    def of_token(token: TokenLogprob) -> dict[str, Any]:
        text = tokenizer.decode([token.id], keep_special=True)
        return {"id": token.id, "token": text, "logprob": token.logprob}

    def of_place(token: TokenLogprob) -> dict[str, Any]:
        fields = of_token(token)
        if token.top:
            fields["top_logprobs"] = [of_token(TokenLogprob(*likely)) for likely in token.top]
        return fields

    def of_completion(completion: Completion) -> dict[str, Any]:
        fields = {
            "answer": completion.text.strip(),
            "stopped": completion.finish_reason == "stop",
            "new_tokens": len(completion.ids),
        }
        if completion.score is not None:
            fields["score"] = completion.score
        if completion.logprobs is not None:
            fields["logprobs"] = [of_place(token) for token in completion.logprobs]
        return fields

    answers = [of_completion(completion) for completion in output.completions]
    fields: dict[str, Any] = answers[0] if len(answers) == 1 else {"answers": answers}
    if output.prompt_logprobs is not None:
        fields["prompt_logprobs"] = [token and of_place(token) for token in output.prompt_logprobs]
    return fields


def settings(
    text_generator: TextGenerator, generator: Generator, options: Options, batch_size: int
) -> dict[str, Any]:
    """Everything but the prompts that determines the answers, flat and in JSON's types."""
    model = _json_fields(text_generator.model.config)
    return {
        "weights": generator.fingerprint(),
        "format": text_generator.formatter.fingerprint,
        "stop strings": list(text_generator.stops.strings),
        "stop ids": list(text_generator.stops.ids),
        "batch_size": batch_size,
        **_json_fields(options),
        **{f"model.{name}": value for name, value in model.items()},
    }


def _json_fields(of: Options | ModelConfig) -> dict[str, Any]:
    """Return the fields as they come back from a JSON file: tuples as lists."""
    fields = dataclasses.asdict(of)
    return {n: list(value) if isinstance(value, tuple) else value for n, value in fields.items()}


def continue_file(path: str, now: dict[str, Any], prompts: Sequence[Prompt]) -> int:
    """Prepares an output file to be continued; removes a half-written line at its end.

    Args:
        path: the output file, with its settings beside it in `<path>.settings.json`. Settings are
            written if there is no output yet.
        now: the present `settings`.
        prompts: all prompts, in the order of the answers.

    Returns:
        The number of answers that the file holds.

    Raises:
        UserError: the file was begun with other settings or other prompts.
        WriteError: the settings cannot be written.
    """
    try:
        return _count_answers(path, prompts) if begin_or_check(path, now) else 0
    except OSError as error:
        raise UserError(f"{path}: cannot be continued: {error}; {REMEDY}") from error


def _count_answers(path: str, prompts: Sequence[Prompt]) -> int:
    """Checks the answers in a file against the prompts, and removes a half-written last line."""
    done = 0
    end = 0
    with open(path, "rb+") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            where = f"{path}:{done + 1}"
            answer = parse_json(line, where, expected=f"an answer; {REMEDY}")
            if done == len(prompts) or not _answers(answer, prompts[done].fields):
                raise UserError(f"{where}: is no answer to these prompts; {REMEDY}")
            done += 1
            end += len(line)
        lines.truncate(end)
    return done


def _answers(line: Any, prompt: dict[str, Any]) -> bool:
    """Whether a line of output is the prompt's fields with those of an answer."""
    blank = dict.fromkeys(_ANSWER_FIELDS)
    return isinstance(line, dict) and line | blank == prompt | blank
