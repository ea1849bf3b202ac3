"""Blocks of thought: the tags in which templates and data write what a model thinks."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ift_jax.text.records import Message, Range


class Tags(NamedTuple):
    """What opens and closes a block of thought, and an empty block as text."""

    opening: str
    closing: str
    empty: str = ""  # "" if a model of these tags never writes an empty block.


TAGS = (
    Tags("<think>", "</think>", "<think>\n\n</think>\n\n"),
    Tags("<thinking>", "</thinking>", "<thinking>\n\n</thinking>\n\n"),
    Tags("<seed:think>", "</seed:think>", "<seed:think>\n</seed:think>\n"),
    Tags("[THINK]", "[/THINK]", "[THINK][/THINK]"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>", "<|START_THINKING|><|END_THINKING|>"),
    Tags("<|channel>thought", "<channel|>", "<|channel>thought\n<channel|>"),
    Tags("<|channel|>analysis<|message|>", "<|end|>"),
    Tags("to=self<|message|>", "<|eom|>"),
)
# Options by which templates keep the thoughts of earlier rounds.
KEEPING_OPTIONS = {
    "preserve_thinking": True,  # Qwen 3.8.
    "clear_thinking": False,  # GLM 4.7.
    "truncate_history_thinking": False,  # Nemotron 3.
    "keep_past_thinking": True,  # LFM 2.5.
}
# Data of models whose prompt opens the block may lack these tags' opening.
_WITHOUT_OPENING = TAGS[:2]


class Block(NamedTuple):
    """A block of thought at the beginning of a text.

    Attributes:
        end: The index after the white space that follows it.
        thought: What it says; "" for an empty one.
    """

    end: int
    thought: str


def leading_block(text: str, thought: str = "") -> Block | None:
    """Return the block of thought at the beginning of what a model generates; None if none is.

    The prompt may have opened the block already.

    Args:
        text: The text.
        thought: What was thought, if it is known: a closing tag inside of it ends nothing.
    """
    for tags, begin in _openings(text):
        known = _after(text, begin, thought)
        close = text.find(tags.closing, known)
        if close >= 0:
            after = close + len(tags.closing)
            end = after + len(text[after:]) - len(text[after:].lstrip())
            return Block(end, text[begin:close].strip())
    return None


def _openings(text: str) -> Iterator[tuple[Tags, int]]:
    """Yield the tags that a text may begin with, and where what was thought begins."""
    blank = len(text) - len(text.lstrip())
    for tags in TAGS:
        if text.startswith(tags.opening, blank):
            yield tags, blank + len(tags.opening)
            return
    # The prompt has the opening tag.
    yield from ((tags, 0) for tags in TAGS if tags.empty and tags.closing in text)


def _after(text: str, begin: int, thought: str) -> int:
    """Return the index after a thought that begins a text, but for white space; else `begin`."""
    core = thought.strip()
    at = begin + len(text[begin:]) - len(text[begin:].lstrip())
    return at + len(core) if text.startswith(core, at) else begin


def is_opened(prompt: str) -> bool:
    """Whether a prompt ends in the opening tag of a block, so that the model thinks at once."""
    end = prompt.rstrip()
    return any(end.endswith(tags.opening) for tags in TAGS)


def has_empty_block(prompt: str) -> bool:
    """Whether a prompt ends in an empty block."""
    end = prompt.rstrip()
    pattern = "|".join(rf"{re.escape(t.opening)}\s*{re.escape(t.closing)}" for t in TAGS)
    return re.search(rf"(?:{pattern})\Z", end) is not None


def thought_in_text(content: str) -> Block | None:
    """Return the block of thought that a content begins with; None if it begins with none."""
    begun = content.lstrip()
    if any(begun.startswith(tags.opening) for tags in TAGS):
        return leading_block(content)
    for tags in _WITHOUT_OPENING:
        head, closing, _ = content.partition(tags.closing)
        if closing:
            return leading_block(content, head)
    return None


def thought_of(message: Message) -> str:
    """Return what an assistant thought, from its own field or from the text."""
    if message.reasoning_content:
        return message.reasoning_content
    block = thought_in_text(message.content)
    return block.thought if block else ""


def without_thought(message: Message) -> Message:
    """Return a turn without its thought."""
    block = thought_in_text(message.content)
    begin = block.end if block else 0
    return dataclasses.replace(
        message,
        content=message.content[begin:],
        reasoning_content="",
        ranges=_shifted(message.ranges, -begin),
    )


def with_empty_block(message: Message, empty: str) -> Message:
    """Return a turn with an empty block of thought before its text."""
    ranges = _shifted(message.ranges, len(empty))
    return dataclasses.replace(message, content=empty + message.content, ranges=ranges)


def _shifted(ranges: Sequence[Range], by: int) -> tuple[Range, ...]:
    moved = [Range(max(r.begin + by, 0), max(r.end + by, 0), r.trained) for r in ranges]
    return tuple(item for item in moved if item.begin < item.end or not item.trained)
