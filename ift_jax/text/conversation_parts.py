"""The thoughts that a conversation has by its policy, and the parts that become examples.

Where the thoughts of earlier rounds are dropped, what a turn is trained after differs from how the
turn itself was trained, so rounds with thoughts are trained in examples of their own.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.text.encode_chunks import Tokens
from ift_jax.text.policies import Policy
from ift_jax.text.records import Message, Record
from ift_jax.text.thought_blocks import (
    KEEPING_OPTIONS,
    TAGS,
    thought_of,
    with_empty_block,
    without_thought,
)
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.unwritten import mentions


class Part(NamedTuple):
    """A beginning of a conversation, of which some turns are trained.

    Attributes:
        record: The conversation up to the last of them, or further.
        weights: The loss weight of each message.
        shared: How many of its messages are in the parts before it, too.
        dropped: How many thoughts were dropped from it.
        is_followed: Whether another part comes after it.
    """

    record: Record
    weights: Sequence[float]
    shared: int = 0
    dropped: int = 0
    is_followed: bool = False

    @property
    def trained(self) -> list[int]:
        """The messages that are trained."""
        return [i for i, weight in enumerate(self.weights) if weight > 0]


def with_thinking(record: Record, policy: Policy, source: str, template: str) -> Record:
    """Return a conversation as its template is to see it under a policy for thoughts.

    Answers without a thought get an empty block, and options of the template that keep the thoughts
    of earlier rounds are set, unless the row sets them.

    Args:
        record: The conversation.
        policy: Its policy.
        source: The Jinja text of the template.
        template: The name of the template.

    Raises:
        UserError: Empty blocks are asked for, and the template's tags have none.
    """
    if policy.earlier_thinking == "keep":
        known = {name: value for name, value in KEEPING_OPTIONS.items() if mentions(source, name)}
        options = {**known, **record.template_options}
        record = dataclasses.replace(record, template_options=options)
    if policy.empty_thinking != "template":
        empty = _empty_block(source, policy, template)
        messages = (_with_block(message, empty) for message in record.messages)
        record = dataclasses.replace(record, messages=tuple(messages))
    return record


def _empty_block(source: str, policy: Policy, template: str) -> str:
    """Return the empty block in the tags that a template mentions, or else in the usual ones."""
    tags = next((tags for tags in TAGS if tags.opening in source), TAGS[0])
    if not tags.empty:
        raise UserError(
            f"format.empty_thinking={policy.empty_thinking!r} cannot be kept under template"
            f" {template!r}: its models never write an empty block in {tags.opening!r}; expected"
            " 'template'"
        )
    return tags.empty


def _with_block(message: Message, empty: str) -> Message:
    if message.role != "assistant" or thought_of(message).strip():
        return message
    return with_empty_block(without_thought(message), empty)


def parts(record: Record, weights: Sequence[float], policy: Policy) -> list[Part]:
    """Return the parts of a conversation that become examples.

    Args:
        record: The conversation.
        weights: The loss weight of each message, one of them more than 0.
        policy: The conversation's policy. Only "drop" for the thoughts of earlier rounds makes
            more than one part, or changes one.
    """
    if policy.earlier_thinking != "drop":
        return [Part(record, weights)]
    found: list[Part] = []
    last = max(i for i, weight in enumerate(weights) if weight > 0)
    begin = 0  # What is trained before it is in an earlier part.
    for end in _round_ends(record.messages):
        # Rounds without thoughts stay in one part with the rounds after them.
        thinks = any(map(_thinks, record.messages[begin:end]))
        if end <= last and not thinks:
            continue
        if any(weight > 0 for weight in weights[begin:end]):
            shared = len(found[-1].record.messages) if found else 0
            found.append(_part(record, weights, begin, end, shared))
        begin = end
        if end > last:
            break
    return found


def _part(record: Record, weights: Sequence[float], begin: int, end: int, shared: int) -> Part:
    """Return the part up to `end` whose trained turns are from `begin` on."""
    is_last = not any(weight > 0 for weight in weights[end:])
    messages = record.messages[:end]
    upto = dataclasses.replace(
        record, messages=messages, references=record.references if is_last else ()
    )
    own = [weight if i >= begin else 0.0 for i, weight in enumerate(weights[:end])]
    dropped = sum(map(_thinks, messages[: _last_round(messages)]))
    return Part(without_earlier_thoughts(upto), own, shared, dropped, not is_last)


def without_earlier_thoughts(record: Record) -> Record:
    """Return a conversation without the thoughts of all rounds but the last."""
    kept_from = _last_round(record.messages)
    messages = [
        without_thought(message) if i < kept_from and _thinks(message) else message
        for i, message in enumerate(record.messages)
    ]
    return dataclasses.replace(record, messages=tuple(messages))


def _thinks(message: Message) -> bool:
    return message.role == "assistant" and bool(thought_of(message).strip())


def _last_round(messages: Sequence[Message]) -> int:
    """Return where the last round begins: its user's turn, or the beginning without one."""
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    return users[-1] if users else 0


def _round_ends(messages: Sequence[Message]) -> list[int]:
    """Return the end of each round: where the next user's turn begins, and that of all."""
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    return [*users[1:], len(messages)]


def repeated_tokens(
    part: Part, tokens: Tokens, tokenizer: Tokenizer, stop_ids: Collection[int]
) -> int:
    """Return how many tokens of a part another part of the conversation has as well.

    These are the turns that an earlier part ends in, and what follows the last answer if another
    part goes on there: one example for the conversation would hold them once.

    Args:
        part: The part, with the record that was encoded.
        tokens: Its tokens.
        tokenizer: The tokenizer.
        stop_ids: The ids that end an answer.
    """
    sizes = [len(piece) for piece in tokens.pieces]
    trained = [k for k, span in enumerate(tokens.spans) if span.message in part.trained]
    after = sum(sizes[trained[-1] + 1 :]) if part.is_followed and trained else 0
    if not part.shared or part.shared >= len(part.record.messages):
        return after
    messages = part.record.messages
    first = trained[0] if trained else len(sizes)
    upto = list(itertools.accumulate(sizes))
    ends: list[int] = []  # Where earlier answers end.
    for k, span in enumerate(tokens.spans[:first]):
        if span.is_answer:
            if k and tokens.spans[k - 1] is span:
                ends.pop()
            ends.append(upto[k])
    turn = part.trained[0]
    if len(ends) == sum(message.role == "assistant" for message in messages[:turn]):
        n_shared = sum(message.role == "assistant" for message in messages[: part.shared])
        return after + (ends[n_shared - 1] if n_shared else 0)
    # An answer that is written differently than before is no span of its own. The shared turns end
    # in the last stop token before the first turn that is new.
    new = "".join(messages[part.shared].content.split())
    text, found = "", False
    for k in reversed(range(first)):
        if found and sizes[k] == 1 and tokens.pieces[k][0] in stop_ids:
            return after + upto[k]
        if not found:
            text = "".join(tokenizer.decode(tokens.pieces[k], keep_special=True).split()) + text
            found = new in text
    return after
