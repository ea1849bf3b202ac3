"""Which turns of a record are trained, with which weight, and in which example."""

import dataclasses
from collections.abc import Iterator, Sequence

from ift_jax.errors import UserError
from ift_jax.text.policies import Policy
from ift_jax.text.records import Message, Record


def message_weights(record: Record, policy: Policy) -> list[float]:
    """Return the loss weight of each message; 0 for all but the trained turns.

    Raises:
        UserError: A turn has a weight, and its role is not trained.
    """
    messages = record.messages
    own = [i for i, message in enumerate(messages) if message.role in policy.train_roles]
    weights = [0.0] * len(messages)
    for i in _chosen(own, messages, policy.train_on):
        given, ranges = messages[i].weight, messages[i].ranges
        is_masked = ranges and not any(item.trained for item in ranges)
        weights[i] = 0.0 if is_masked else record.weight * (1.0 if given is None else given)
    for i, message in enumerate(messages):
        # An assistant's weights stay in data of which other roles are trained.
        if message.weight and message.role not in (*policy.train_roles, "assistant"):
            raise UserError(
                f"{record.where}: messages[{i}]: has the loss weight {message.weight:g}, but"
                f" format.train_roles does not name {message.role!r}; expected 0, false or nothing,"
                " or the role there"
            )
    return weights


def _chosen(own: Sequence[int], messages: Sequence[Message], train_on: str) -> Sequence[int]:
    """Return which of the turns of trained roles are trained."""
    if train_on == "all":
        return own
    if train_on == "last":
        return own[-1:]
    users = [i for i in range(own[-1] + 1) if messages[i].role == "user"] if own else []
    begin = users[-1] if users else 0
    return [i for i in own if i >= begin]


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
