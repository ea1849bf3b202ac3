"""Which turns of a record are trained, with which weight, and in which example."""

import dataclasses
from collections.abc import Iterator, Sequence

from ift_jax.text.records import Message, Record


def message_weights(messages: Sequence[Message], train_on: str) -> list[float]:
    """Return the loss weight of each message; 0 for all but the assistant's trained turns."""
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    weights = [0.0] * len(messages)
    for i in answers if train_on == "all" else answers[-1:]:
        given, ranges = messages[i].weight, messages[i].ranges
        is_masked = ranges and not any(item.trained for item in ranges)
        weights[i] = 0.0 if is_masked else 1.0 if given is None else given
    return weights


def one_for_each_answer(record: Record, turns: Sequence[int]) -> Iterator[tuple[Record, int]]:
    """Yield each given answer with the record that ends in it."""
    for turn in turns:
        if turn == len(record.messages) - 1:
            yield record, turn  # Most records have one answer: they need no copy.
            continue
        # The references are those of the last answer.
        references = record.references if turn == turns[-1] else ()
        messages = record.messages[: turn + 1]
        yield dataclasses.replace(record, messages=messages, references=references), turn


def references_of(record: Record, turn: int) -> tuple[str, ...]:
    """Return the answer itself and the references given for it."""
    return tuple(dict.fromkeys((record.messages[turn].content, *record.references)))
