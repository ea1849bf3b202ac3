"""The parts of a rendered answer: the thought, the text, and the calls with the stop token."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ift_jax.text.records import Message
from ift_jax.text.thought_blocks import leading_block, thought_in_text, thought_of

_CALLS_IN_TEXT = "<tool_call>"  # Data in Hermes' form has calls in the text.


class AnswerParts(NamedTuple):
    """Where the parts of an answer begin and end: indices of characters.

    Attributes:
        thought_end: The end of the block of thought, with the white space after it; 0 without one.
        text: Where the text begins, without white space.
        text_end: Where it ends, without white space.
        calls: Where the calls begin; what follows is theirs, the stop token included. It is the
            end of the answer if there are none.
    """

    thought_end: int
    text: int
    text_end: int
    calls: int


class PartsNotFound(Exception):
    """The parts of an answer cannot be told apart; says which."""


def answer_parts(answer: str, message: Message) -> AnswerParts:
    """Find the parts of an answer.

    Args:
        answer: What the template wrote of it.
        message: What the record says.

    Raises:
        PartsNotFound: A thought is in no block that is known, the text is not there as it was
            given, or the calls do not follow it.
    """
    thought = thought_of(message)
    block = leading_block(answer, thought)
    if thought.strip() and (block is None or not block.thought):
        raise PartsNotFound("a thought in tags that are known")
    # Without a thought, a closing tag in the text closes nothing, but for an empty block.
    thought_end = 0 if block is None or (block.thought and not thought) else block.end
    own_block = thought_in_text(message.content)
    content = message.content[own_block.end :] if own_block else message.content
    calls_begin = content.find(_CALLS_IN_TEXT)
    text = (content if calls_begin < 0 else content[:calls_begin]).strip()
    begin = answer.find(text, thought_end)
    if begin < 0:
        raise PartsNotFound("an answer's text as it was given")
    end = begin + len(text)
    if calls_begin >= 0 or message.tool_calls or message.function_calls:
        _check_calls(answer[end:], message)
        return AnswerParts(thought_end, begin, end, end)
    return AnswerParts(thought_end, begin, end, len(answer))


def _check_calls(rest: str, message: Message) -> None:
    """Check that the calls come last."""
    names = [_name(call) for call in message.tool_calls]
    if not all(name in rest for name in names) or message.function_calls.strip() not in rest:
        raise PartsNotFound("calls after an answer's text")


def _name(call: Mapping[str, Any]) -> str:
    return call["function"]["name"]
