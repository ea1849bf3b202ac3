"""Applying a chat template: a record becomes spans of text, with its answers separate.

`ChatRenderer._apply_chat_template` is the one place where a template is rendered. Answers are what
the template puts inside `{% generation %}`. Where it has no such tags, an answer is what a
conversation adds after the text of its prompt, which ends in the generation prompt. Either way, an
answer must begin exactly where that text ends; this is checked.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.text import marks
from ift_jax.text.chat_templates.probes import probes
from ift_jax.text.chat_templates.template import Rendered, Template
from ift_jax.text.control_strings import break_control_strings, control_pattern
from ift_jax.text.records import Record
from ift_jax.text.rows.calls import parse_calls_text, parse_tools
from ift_jax.text.tokenizers.base import Tokenizer


class Span(NamedTuple):
    """A stretch of a rendered conversation: one answer, or what stands between two answers.

    No token crosses the edge of a span, because generation is prompted with exactly the spans
    before an answer.
    """

    text: str  # With the control strings that a user typed broken; see `control_strings`.
    is_answer: bool = False  # Whether the model generates it.
    message: int | None = None  # The message whose loss weight the span has.

    @property
    def trained(self) -> bool:
        """Whether the span may carry loss; its message's weight says how much."""
        return self.message is not None


class Interval(NamedTuple):
    """A stretch of a text, half-open: `end` is the index after its last character."""

    start: int
    end: int


class Chat(NamedTuple):
    """A record as a template sees it."""

    messages: list[dict[str, Any]]  # Plain data, with the control strings in it broken.
    tools: list[Any] | None  # Likewise; None if there are none.
    options: Mapping[str, Any]  # Further variables for the template.
    other_roles: Mapping[int, str]  # Roles by message that the template has another word for.
    n_characters: int  # Approximate length.
    control_strings: int  # How many its texts contain.
    restore: Mapping[int, str] | None  # A `str.translate` table; see `_UserTexts.restore`.
    where: str  # The record's place, for errors.

    @property
    def answers(self) -> list[int]:
        """The indices of the assistant's messages."""
        return [i for i, message in enumerate(self.messages) if message["role"] == "assistant"]


class ChatRenderer:
    """Applies one chat template, for one tokenizer's special tokens.

    Attributes:
        template: The template.
    """

    def __init__(self, template: Template, tokenizer: Tokenizer, *, break_controls: bool):
        """Set up the variables that describe the tokenizer to the template.

        Args:
            template: The template to apply.
            tokenizer: Its special tokens are variables of the template, such as `eos_token`.
            break_controls: Whether control strings in a record's own texts are ordinary text.
        """
        self.template = template
        self._special_tokens_map = dict(tokenizer.special_tokens_map)
        self._controls = control_pattern(tokenizer.special_tokens)
        self._break_controls = break_controls

    def prepare(self, record: Record) -> Chat:
        """Prepare a record for the template.

        Raises:
            UserError: Calls or tools are a text, and the template takes them as data alone.
        """
        typed = _UserTexts(record, self._controls, self._break_controls)
        messages = []
        other_roles: dict[int, str] = {}
        tools = list(record.tools)
        for i, message in enumerate(record.messages):
            role = message.role
            if message.role_name and message.role_name != role:
                if self._knows_role(message.role_name):
                    role = message.role_name
                else:
                    other_roles[i] = message.role_name
            fields: dict[str, Any] = {"role": role, "content": typed(message.content)}
            calls = message.tool_calls
            if message.function_calls:
                if self._knows_field("function_calls"):
                    fields["function_calls"] = typed(message.function_calls)
                else:
                    place = f"{record.where}: messages[{i}].function_calls"
                    calls += parse_calls_text(message.function_calls, place)
            if message.functions:
                if self._knows_field("functions"):
                    fields["functions"] = typed(message.functions)
                else:
                    place = f"{record.where}: messages[{i}].functions"
                    tools += parse_tools(message.functions, place)
            if calls:
                fields["tool_calls"] = _map_texts(calls, typed)
            if message.reasoning_content:
                thought = typed(message.reasoning_content)
                fields |= {"reasoning_content": thought, "thinking": thought}
            if message.name:
                fields["name"] = typed(message.name)
            if message.tool_call_id:
                fields["tool_call_id"] = typed(message.tool_call_id)
            messages.append(fields)
        return Chat(
            messages,
            _map_texts(tools, typed) or None,
            {name: _map_texts(value, typed) for name, value in record.template_options.items()},
            other_roles,
            typed.n_characters,
            typed.control_strings,
            typed.restore,
            record.where,
        )

    def plain_text(self, record: Record) -> tuple[Chat, list[Span]]:
        """Return a plain text as one span, which is trained; its control strings stay whole."""
        typed = _UserTexts(record, self._controls, break_controls=False)
        text = typed(record.messages[0].content)
        chat = Chat([], None, {}, {}, len(text), 0, typed.restore, record.where)
        return chat, [Span(text, True, 0)]

    def _knows_role(self, name: str) -> bool:
        """Whether the template tells a role by this name from others."""
        return self._mentions(rf"""['"]{name}['"]""")

    def _knows_field(self, name: str) -> bool:
        """Whether the template reads a field of this name."""
        return self._mentions(rf"""['"]{name}['"]|\.{name}\b""")

    @functools.cache  # noqa: B019 - as long-lived as the renderer, and few.
    def _mentions(self, pattern: str) -> bool:
        return re.search(pattern, self.template.source) is not None

    def conversation(self, chat: Chat) -> list[Span] | None:
        """Render a whole conversation and separate all its answers.

        Returns:
            The spans, or None if the text that prompts some answer does not end where the answer
            begins, or if the template writes the answer differently when more follows it.
        """
        rendered = self._apply_chat_template(chat, len(chat.messages))
        answers = chat.answers
        if not self.template.has_generation_tags:
            intervals = self._find_all(chat, rendered.text, answers)
            return (
                None if intervals is None else _split_at_answers(rendered.text, intervals, answers)
            )
        if rendered.n_generated != len(answers):
            return None
        if not self._never_rewrites and not self._answers_follow_prompts(chat, rendered):
            return None
        return _spans(rendered.parts, answers)

    def last_answer(self, chat: Chat, turn: int) -> list[Span] | None:
        """Render a conversation up to one answer, the only one that may be trained.

        Args:
            chat: The conversation up to the answer.
            turn: The index of the answer among the messages.

        Returns:
            The spans, or None if not even this answer follows the text that prompts it.
        """
        prompt = self._apply_chat_template(chat, turn, add_generation_prompt=True)
        rendered = self._apply_chat_template(chat, turn + 1)
        if self.template.has_generation_tags:
            if not _follows(rendered, prompt):
                return None
            n_earlier = prompt.n_generated
            n_own = rendered.n_generated - n_earlier
            return _spans(rendered.parts, [None] * n_earlier + [turn] * n_own)
        start = len(prompt.text)
        end = self._answer_end(rendered.text, start)
        if end is None or not rendered.text.startswith(prompt.text):
            return None
        earlier = self._find_some(chat, prompt.text, chat.answers[:-1])
        intervals = [*earlier, Interval(start, end)]
        return _split_at_answers(rendered.text, intervals, [None] * len(earlier) + [turn])

    def prompt(self, chat: Chat) -> list[Span]:
        """Render the prompt of the next answer; earlier answers are separate and untrained."""
        rendered = self._apply_chat_template(chat, len(chat.messages), add_generation_prompt=True)
        if self.template.has_generation_tags:
            return _spans(rendered.parts, [None] * rendered.n_generated)
        intervals = self._find_some(chat, rendered.text, chat.answers)
        return _split_at_answers(rendered.text, intervals, [None] * len(intervals))

    def inputs(self, chat: Chat) -> list[Span]:
        """Render what an encoder reads: a conversation without a generation prompt at its end."""
        rendered = self._apply_chat_template(chat, len(chat.messages))
        return _spans(rendered.parts, [None] * rendered.n_generated)

    def _apply_chat_template(
        self, chat: Chat, n_messages: int, *, add_generation_prompt: bool = False
    ) -> Rendered:
        """Render the first messages of a conversation: the one call of a chat template."""
        return self.template.render(
            chat.where,
            chat.n_characters,
            **{**self._special_tokens_map, **chat.options},
            messages=chat.messages[:n_messages],
            tools=chat.tools,
            documents=None,
            add_generation_prompt=add_generation_prompt,
        )

    @functools.cached_property
    def _never_rewrites(self) -> bool:
        """Whether the template writes every answer of every probe as generation would.

        Then records need no check of their own, which would render each of them several times.
        """
        return all(map(self._probe_keeps_answers, probes(self.template.source)))

    def _probe_keeps_answers(self, probe: Record) -> bool:
        try:
            chat = self.prepare(probe)
            rendered = self._apply_chat_template(chat, len(chat.messages))
            if rendered.n_generated != len(chat.answers):
                return False
            return self._answers_follow_prompts(chat, rendered)
        except UserError:
            return True  # The template rejects this conversation.

    def _answers_follow_prompts(self, chat: Chat, rendered: Rendered) -> bool:
        """Whether each tagged answer follows its prompt and stays the same when it is not last."""
        for i, turn in enumerate(chat.answers):
            before = rendered.parts[: 2 * i + 1]
            prompt = self._apply_chat_template(chat, turn, add_generation_prompt=True)
            if prompt.parts != before:
                return False
            if turn + 1 < len(chat.messages):
                answer = rendered.parts[2 * i + 1]
                as_last = self._apply_chat_template(chat, turn + 1)
                if as_last.parts[: 2 * i + 2] != [*before, answer]:
                    return False
        return True

    def _find_all(self, chat: Chat, text: str, turns: Sequence[int]) -> list[Interval] | None:
        """Find all given answers in a text without tags; None if one of them is not found."""
        found: list[Interval] = []
        for turn in turns:
            interval = self._find(chat, text, turn, found[-1].end if found else 0)
            if interval is None:
                return None
            found.append(interval)
        return found

    def _find_some(self, chat: Chat, text: str, turns: Sequence[int]) -> list[Interval]:
        """Find as many of the given answers in a text without tags as possible."""
        found: list[Interval] = []
        for turn in turns:
            interval = self._find(chat, text, turn, found[-1].end if found else 0)
            if interval is not None:
                found.append(interval)
        return found

    def _find(self, chat: Chat, text: str, turn: int, earliest: int) -> Interval | None:
        """Find an answer in a text without tags: what its turn adds to the text of its prompt."""
        prompt = self._apply_chat_template(chat, turn, add_generation_prompt=True).text
        is_last = turn + 1 == len(chat.messages)
        answered = text if is_last else self._apply_chat_template(chat, turn + 1).text
        start = len(prompt)
        end = self._answer_end(answered, start)
        if end is None or start < earliest:
            return None
        if not answered.startswith(prompt) or answered[:end] != text[:end]:
            return None
        return Interval(start, end)

    def _answer_end(self, text: str, start: int) -> int | None:
        """Return the end of the answer that begins at `start`: after the last control token."""
        found = list(self._controls.finditer(text, start)) if self._controls else []
        return found[-1].end() if found else None


class _UserTexts:
    """Makes the texts of a record safe to render and counts what they contain.

    Attributes:
        n_characters: The characters of all texts so far.
        control_strings: The control strings that were found in them.
    """

    def __init__(self, record: Record, controls: re.Pattern[str] | None, break_controls: bool):
        self.n_characters = 0
        self.control_strings = 0
        self._record = record
        self._controls = controls
        self._break_controls = break_controls
        self._stand_ins: dict[int, str] | None = None

    def __call__(self, text: str) -> str:
        """Break the control strings in a text and replace characters that look like marks."""
        self.n_characters += len(text)
        if marks.has_noncharacter(text):
            if self._stand_ins is None:
                self._stand_ins = marks.stand_ins(_texts(self._record), self._record.where)
            text = text.translate(self._stand_ins)
        if self._controls is None:
            return text
        broken, count = break_control_strings(text, self._controls)
        self.control_strings += count
        return broken if self._break_controls else text

    @property
    def restore(self) -> Mapping[int, str] | None:
        """The table that restores what looked like marks; None if nothing did."""
        return None if self._stand_ins is None else marks.inverse(self._stand_ins)


def _follows(rendered: Rendered, prompt: Rendered) -> bool:
    """Whether an answer begins exactly where the text that prompts it ends."""
    n = len(prompt.parts)
    prompt_ends_outside = n % 2 == 1
    return prompt_ends_outside and len(rendered.parts) > n and rendered.parts[:n] == prompt.parts


def _split_at_answers(
    text: str, answers: Sequence[Interval], messages: Sequence[int | None]
) -> list[Span]:
    """Split a text into spans at the edges of its answers; for `messages` see `_spans`."""
    parts: list[str] = []
    at = 0
    for start, end in answers:
        parts += (text[at:start], text[start:end])
        at = end
    parts.append(text[at:])
    return _spans(parts, messages)


def _spans(parts: Sequence[str], messages: Sequence[int | None]) -> list[Span]:
    """Make spans of texts that stand alternately outside and inside answers.

    Args:
        parts: The texts; the first one stands outside answers.
        messages: For each answer the index of its message, or None if it is untrained.
    """
    spans = [Span(part) for part in parts]
    for i, message in enumerate(messages):
        spans[2 * i + 1] = Span(parts[2 * i + 1], True, message)
    return spans


def _texts(record: Record) -> list[str]:
    """Collect all texts of a record."""
    found: list[str] = []
    messages = [dataclasses.asdict(message) for message in record.messages]
    _map_texts([messages, record.tools, record.template_options], found.append)
    return found


def _map_texts(value: Any, function: Callable[[str], Any]) -> Any:
    """Apply a function to all texts in plain data, including the keys of objects."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        return {function(key): _map_texts(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(item, function) for item in value]
    return value
