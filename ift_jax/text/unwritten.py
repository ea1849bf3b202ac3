"""What a record says and a chat template did not write.

A template may leave out a thought beside an answer, an answer beside a call, or a tool's
description, and nobody would notice: the model would be trained on something else than the data
says. So after rendering, each text of the record is looked for in what was written. White space
does not count, because templates trim and indent.
"""

import functools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.text.chat_templates.render import Chat

# Names and numbers of things, which many templates leave out and no model misses.
IDENTIFIERS = frozenset(("name", "tool_call_id", "tool_calls[].id"))
THOUGHT = "reasoning_content"
_THOUGHT_NAMES = (THOUGHT, "thinking")
_END_OF_THOUGHT = "</think>"
_BEGINNING = 24  # Characters of a text that are looked for first.
_ROLE = "role "  # Begins what is said of a role under another name.


class Unwritten(NamedTuple):
    """A text that a template did not write: of a message, by its index, or of the whole record."""

    message: int | None
    field: str

    @property
    def path(self) -> str:
        """What an error calls it."""
        return self.field if self.message is None else f"messages[{self.message}].{self.field}"

    def matters(self, trained: Collection[int]) -> bool:
        """Whether a model that is trained on these messages would miss the text."""
        if self.field == THOUGHT:
            return self.message in trained
        return self.field not in IDENTIFIERS and not self.field.startswith(_ROLE)


def unwritten(chat: Chat, written: str, source: str) -> frozenset[Unwritten]:
    """Return the texts of a record that a template did not write.

    Args:
        chat: The record as the template saw it.
        written: What the template wrote.
        source: The template's Jinja text.
    """
    page = _Page(written)
    missing: set[Unwritten] = set()
    for i, message in enumerate(chat.messages):
        if len(message) == 2 and _END_OF_THOUGHT not in message["content"]:  # Nearly all of them.
            if not page.has(message["content"]):
                missing.add(Unwritten(i, "content"))
            continue
        missing.update(Unwritten(i, field) for field in _of_message(message, page, source))
    for i, role in chat.other_roles.items():
        missing.add(Unwritten(i, f"{_ROLE}{role!r} (written as {chat.messages[i]['role']!r})"))
    if chat.tools and not all(_tool_is_there(tool, page) for tool in chat.tools):
        missing.add(Unwritten(None, "tools"))
    for name in chat.options:
        if not mentions(source, name):
            missing.add(Unwritten(None, f"chat_template_kwargs.{name}"))
    return frozenset(missing)


@functools.lru_cache(maxsize=256)
def mentions(source: str, name: str) -> bool:
    """Whether a template mentions a variable or a field of this name."""
    return re.search(rf"\b{re.escape(name)}\b", source) is not None


def _of_message(message: Mapping[str, Any], page: "_Page", source: str) -> Iterator[str]:
    """Yield the fields of a message that were not written."""
    thought, end, answer = message["content"].rpartition(_END_OF_THOUGHT)
    if message["role"] != "assistant" or not end:
        thought, answer = "", message["content"]
    if not page.has(answer):
        yield "content"
    if not page.has(thought.replace("<think>", "")):
        yield THOUGHT
    if THOUGHT in message:
        is_known = any(mentions(source, name) for name in _THOUGHT_NAMES)
        if not is_known or not page.has(message[THOUGHT]):
            yield THOUGHT
    calls = message.get("tool_calls", ())
    if calls:
        is_known = mentions(source, "tool_calls")
        if not is_known or not all(_call_is_there(call["function"], page) for call in calls):
            yield "tool_calls"
        if not all(page.has(call.get("id", "")) for call in calls):
            yield "tool_calls[].id"
    for name in ("name", "tool_call_id", "functions", "function_calls"):
        if name in message and not page.has(message[name]):
            yield name


def _call_is_there(function: Mapping[str, Any], page: "_Page") -> bool:
    return page.has(function["name"]) and all(
        page.has(text) for text in _texts(function["arguments"])
    )


def _tool_is_there(tool: Any, page: "_Page") -> bool:
    """Whether a tool was written: its name and description, and those of its parameters."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else tool
    if not isinstance(function, Mapping):
        return all(page.has(text) for text in _texts(function))
    texts = [function.get("name"), function.get("description")]
    parameters = function.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    for name, schema in properties.items() if isinstance(properties, Mapping) else ():
        texts.append(name)
        if isinstance(schema, Mapping):
            texts.append(schema.get("description"))
    lines = [line for text in texts if isinstance(text, str) for line in text.splitlines()]
    return all(page.has(line) for line in lines)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in plain data, the keys of objects among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


class _Page:
    """What a template wrote, to look for texts in."""

    def __init__(self, written: str):
        self._written = written

    def _has_as_it_is(self, text: str) -> bool:
        """Whether a text was written without any change, which nearly all are.

        Looking for its beginning and comparing the rest takes a tenth of the time of `in`.
        """
        beginning = text[:_BEGINNING]
        at = self._written.find(beginning)
        while at >= 0:
            if self._written.startswith(text, at):
                return True
            at = self._written.find(beginning, at + 1)
        return False

    @functools.cached_property
    def _squeezed(self) -> str:
        return _squeezed(self._written)

    def has(self, text: str) -> bool:
        """Whether a text was written, as it is or as in JSON, whatever its white space."""
        if self._has_as_it_is(text):
            return True
        if _squeezed(text) in self._squeezed:
            return True
        return any(
            _squeezed(json.dumps(text, ensure_ascii=ascii_only)[1:-1]) in self._squeezed
            for ascii_only in (False, True)
        )


def _squeezed(text: str) -> str:
    return "".join(text.split())


def never_written(
    parts: Sequence[tuple[int, Iterable[Unwritten]]],
) -> frozenset[Unwritten]:
    """Return what none of a record's examples holds.

    A template that leaves out earlier thoughts gives an example for each trained turn, and a
    turn's thought is in its own.

    Args:
        parts: For each example the index of its last message, and what was not written in it.
    """
    last = set(parts[-1][1])
    return frozenset(
        item
        for item in last
        if all(item in missing for end, missing in parts if (item.message or 0) <= end)
    )


def field_names(left_out: Iterable[Unwritten]) -> tuple[str, ...]:
    """Return the names of the fields, each once."""
    return tuple(sorted({item.field for item in left_out}))
