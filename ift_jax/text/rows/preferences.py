"""Pairs: a chosen and a rejected answer to one prompt, as rows of several systems hold them.

| row | read so by |
|---|---|
| `chosen`, `rejected`: whole conversations that begin alike | TRL, UltraFeedback, Tülu 3 |
| `prompt` (a text or messages), `chosen`, `rejected`: answers | TRL |
| `question`, `chosen`, `rejected`: texts, with a `system` | Orca's pairs |
| `instruction`, `input` or `conversations`; `chosen`, `rejected` | LLaMA-Factory |
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.text.records import Message

PROMPTS = ("prompt", "question", "instruction", "conversations")
CHOSEN, REJECTED = "chosen", "rejected"


class Pair(NamedTuple):
    """The messages of both sides, which begin with the same prompt."""

    prompt: tuple[Message, ...]  # Its assistant's turns are not trained.
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


def make_pair(
    prompt: Sequence[Message], chosen: Sequence[Message], rejected: Sequence[Message], where: str
) -> Pair:
    """Split the sides of a row into what they share and the answers.

    Args:
        prompt: The prompt that has a field of its own; empty if there is none, or if both sides
            begin with it.
        chosen: The messages of the side: answers alone after a `prompt`, else a conversation.
        rejected: As `chosen`.
        where: The row's place, for errors.

    Raises:
        UserError: There is no prompt, or a side has no answer.
    """
    n_shared = 0 if prompt else n_alike(chosen, rejected)
    if not prompt and not n_shared:
        raise UserError(
            f"{where}: field {REJECTED!r}: expected the messages that field {CHOSEN!r} begins"
            " with, or a field 'prompt'; found another first message"
        )
    sides = {CHOSEN: tuple(chosen[n_shared:]), REJECTED: tuple(rejected[n_shared:])}
    for name, answers in sides.items():
        if not any(message.role == "assistant" for message in answers):
            raise UserError(
                f"{where}: field {name!r}: expected an assistant's answer after the prompt, found"
                " none"
            )
    shared = tuple(map(untrained, (*prompt, *chosen[:n_shared])))
    return Pair(shared, sides[CHOSEN], sides[REJECTED])


def n_alike(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Return how many messages two conversations begin with alike, without their last ones."""
    n_shared = 0
    for ours, theirs in zip(chosen[:-1], rejected[:-1], strict=False):
        if ours != theirs:
            break
        n_shared += 1
    return n_shared


def is_said(prompt: Sequence[Message], shared: Sequence[Message]) -> bool:
    """Whether messages that two sides share hold what a field of its own says of the prompt.

    A prompt that is one text may be any turn of the user: UltraFeedback and Tülu 3 have a column
    with the first one.
    """
    if len(prompt) == 1:
        text = prompt[0].content.strip()
        return any(m.role == prompt[0].role and m.content.strip() == text for m in shared)
    return list(shared[: len(prompt)]) == list(prompt)


def untrained(message: Message) -> Message:
    """Return a message of a prompt: only what follows it is trained."""
    return dataclasses.replace(message, weight=0.0) if message.role == "assistant" else message
