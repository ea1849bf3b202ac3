"""Variant: a conversation as one text in which the answers are marked.

Answers are what a template puts inside `{% generation %}`, or, where it has no such tags, what
a conversation gains over its own beginning with the generation prompt. Both are checked: an
answer must begin exactly where the text that generation is prompted with ends.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.sandbox import CLOSE, OPEN, Template
from ift_jax.text.records import Record
from ift_jax.text.tokenizers.base import BREAK, Tokenizer, control_pattern

_NONCHARACTERS = "".join(map(chr, range(0xFDD0, 0xFDF0)))
_ANY_MARK = re.compile(f"[{_NONCHARACTERS}]")
_TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class Chat(NamedTuple):
    """A record as a template sees it."""

    messages: list[dict[str, Any]]  # Plain data, with `BREAK` in typed control strings.
    tools: list[Any] | None  # Likewise; None where there are none.
    size: int  # About its characters.
    controls: int  # How many control strings the texts hold.
    restore: Mapping[int, str] | None  # Puts noncharacters back that made way for the marks.
    where: str  # The record's place.


class Marked(NamedTuple):
    """A rendered text with `OPEN` and `CLOSE` around answers, and the message of each (or -2)."""

    text: str
    turns: Sequence[int] = ()


class Renderer:
    """One template with one tokenizer's special tokens."""

    def __init__(self, template: Template, tokenizer: Tokenizer, break_controls: bool):
        """With `break_controls` control strings in a message's text are text."""
        self.template = template
        self._names = dict(tokenizer.names)
        self._controls = control_pattern(tokenizer.special_tokens)
        self._break = break_controls
        self._tagged = bool(_TAG.search(template.source))

    def chat(self, record: Record) -> Chat:
        """A record, ready for `last` and `prompt`.

        Raises:
            UserError: it has tools, tool calls or thoughts, of which the template knows nothing.
        """
        found, size, restore = 0, 0, None

        def mark(text: str) -> str:
            nonlocal found, size, restore
            size += len(text)
            if not text.isascii() and _ANY_MARK.search(text):
                restore = restore or self._restore(record)
                text = text.translate(restore)
            if self._controls is not None:
                broken, n = self._controls.subn(_broken, text)
                found += n
                text = broken if self._break else text
            return text

        messages = []
        for message in record.messages:
            fields: dict[str, Any] = {"role": message.role, "content": mark(message.content)}
            if message.tool_calls:
                self._knows(record, "tool_calls")
                fields["tool_calls"] = _each_text(message.tool_calls, mark)
            if message.reasoning_content:
                self._knows(record, "reasoning_content", "thinking")
                thought = mark(message.reasoning_content)
                fields |= {"reasoning_content": thought, "thinking": thought}
            for name in ("name", "tool_call_id"):
                if value := getattr(message, name):
                    fields[name] = mark(value)
            messages.append(fields)
        if record.tools:
            self._knows(record, "tools")
        tools = _each_text(record.tools, mark) or None
        restore_map = {ord(new): chr(old) for old, new in restore.items()} if restore else None
        return Chat(messages, tools, size, found, restore_map, record.where)

    def text(self, chat: Chat, n: int, prompt: bool = False) -> str:
        """The first n messages as the template writes them, with the generation prompt or not."""
        return self.template.render(
            chat.where,
            chat.size,
            **self._names,
            messages=chat.messages[:n],
            tools=chat.tools,
            documents=None,
            add_generation_prompt=prompt,
        )

    def last(self, chat: Chat, turn: int) -> Marked | None:
        """The conversation up to one answer, the only one that is marked with its number.

        Returns None if the answer does not follow its own prompt in the rendered text.
        """
        before, text = self.text(chat, turn, prompt=True), self.text(chat, turn + 1)
        if self._tagged:
            n = before.count(OPEN)
            if text.startswith(before + OPEN):
                return Marked(text, [-2 if i < n else turn for i in range(text.count(OPEN))])
        elif (end := self._end(text, len(before))) and text.startswith(before):
            earlier = self._mark_found(chat, before, answers_of(chat)[:-1])
            marked = f"{earlier.text}{OPEN}{text[len(before) : end]}{CLOSE}{text[end:]}"
            return Marked(marked, [*(-2 for _ in earlier.turns), turn])
        return None

    def prompt(self, chat: Chat) -> str:
        """The text that the next answer is prompted with, earlier answers marked."""
        text = self.text(chat, len(chat.messages), prompt=True)
        if self._tagged:
            return text
        return self._mark_found(chat, text, answers_of(chat)).text

    def _mark_all(self, chat: Chat, text: str, turns: Sequence[int]) -> Marked | None:
        """The text with the answers of these turns marked; None if one does not stand in it."""
        parts: list[str] = []
        at = 0
        for turn in turns:
            place = self._place(chat, text, turn, at)
            if place is None:
                return None
            start, end = place
            parts += [text[at:start], OPEN, text[start:end], CLOSE]
            at = end
        return Marked("".join((*parts, text[at:])), turns)

    def _mark_found(self, chat: Chat, text: str, turns: Sequence[int]) -> Marked:
        """The text with those answers marked that stand in it as generation would write them."""
        parts: list[str] = []
        found: list[int] = []
        at = 0
        for turn in turns:
            place = self._place(chat, text, turn, at)
            if place is not None:
                start, end = place
                parts += [text[at:start], OPEN, text[start:end], CLOSE]
                found.append(turn)
                at = end
        return Marked("".join((*parts, text[at:])), found)

    def _place(self, chat: Chat, text: str, turn: int, at: int) -> tuple[int, int] | None:
        """Where an answer stands in the text, not before `at`; None if generation would differ."""
        before = self.text(chat, turn, prompt=True)
        after = text if turn + 1 == len(chat.messages) else self.text(chat, turn + 1)
        start = len(before)
        end = self._end(after, start)
        if end and start >= at and after.startswith(before) and after[:end] == text[:end]:
            return start, end
        return None

    def _end(self, text: str, start: int) -> int | None:
        """Where an answer ends that begins at `start`: after the last control token."""
        found = list(self._controls.finditer(text, start)) if self._controls else []
        return found[-1].end() if found else None

    def _restore(self, record: Record) -> dict[int, str]:
        texts: list[str] = []
        _each_text([[*map(dataclasses.asdict, record.messages)], record.tools], texts.append)
        free = sorted(set(_NONCHARACTERS[3:]) - set("".join(texts)))
        if len(free) < 3:
            raise UserError(f"{record.where}: the text holds all of U+FDD0 to U+FDEF")
        return dict(zip(map(ord, (OPEN, CLOSE, BREAK)), free[:3], strict=True))

    def _knows(self, record: Record, *names: str) -> None:
        if not any(name in self.template.source for name in names):
            raise UserError(
                f"{record.where}: template {self.template.name!r} has no place for"
                f" {names[0]}; expected a record without, or another template"
            )


def answers_of(chat: Chat) -> list[int]:
    """The numbers of the messages that are an assistant's."""
    return [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]


def _broken(match: re.Match[str]) -> str:
    text = match[0]
    return text[0] + BREAK + text[1:] if len(text) > 1 else BREAK + text


def _each_text(value: Any, function: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        return {function(k): _each_text(v, function) for k, v in value.items()}
    return [_each_text(v, function) for v in value] if isinstance(value, list | tuple) else value
