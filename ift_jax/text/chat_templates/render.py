"""Applying a chat template: a record becomes spans of text, with its answers separate.

`ChatRenderer._apply_chat_template` is the one place where a template is rendered. Answers are found
by `TaggedAnswers` or `UntaggedAnswers`.
"""

import contextlib
import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.text import marks
from ift_jax.text.chat_templates.answers import AnswerFinder
from ift_jax.text.chat_templates.chat import Chat, Span
from ift_jax.text.chat_templates.message_form import MessageForm, message_form
from ift_jax.text.chat_templates.probes import probes
from ift_jax.text.chat_templates.tagged_answers import TaggedAnswers
from ift_jax.text.chat_templates.template import Rendered, Template
from ift_jax.text.chat_templates.untagged_answers import UntaggedAnswers
from ift_jax.text.control_strings import break_control_strings, control_pattern
from ift_jax.text.other_turns import MarkedText
from ift_jax.text.records import Record
from ift_jax.text.rows.calls import parse_calls_text, parse_tools
from ift_jax.text.tokenizers.base import Tokenizer


class ChatRenderer:
    """Applies one chat template, for one tokenizer's special tokens.

    Attributes:
        template: The template.
        answers: Finds the answers in what it writes.
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
        self._form: MessageForm | None = None
        self._form = self._found_form()
        finder = TaggedAnswers if template.has_generation_tags else UntaggedAnswers
        self.answers: AnswerFinder = finder(
            template, self._controls, self._apply_chat_template, self._probes
        )

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
        return self.answers.conversation(chat)

    def last_answer(self, chat: Chat, turn: int) -> list[Span] | None:
        """Render a conversation up to one answer, the only one that may be trained.

        Args:
            chat: The conversation up to the answer.
            turn: The index of the answer among the messages.

        Returns:
            The spans, or None if not even this answer follows the text that prompts it.
        """
        found = self.answers.last_answer(chat, turn)
        return None if found is None else found.spans

    def prompt(self, chat: Chat) -> list[Span]:
        """Render the prompt of the next answer; earlier answers are separate and untrained."""
        return self.answers.prompt(chat).spans

    def inputs(self, chat: Chat) -> list[Span]:
        """Render what an encoder reads: a conversation and the generation prompt of its answer.

        T5Gemma's instruction-tuned releases are prompted so, by the `gemma` library and by the
        documentation of `transformers`; the decoder then begins with its start token alone.
        """
        rendered = self._apply_chat_template(chat, len(chat.messages), prompt=True)
        parts = enumerate(rendered.parts)
        return [Span(part, is_answer=bool(i % 2)) for i, part in parts]

    def with_contents(self, chat: Chat, turns: Sequence[int]) -> MarkedText:
        """Render a conversation and say where the contents of some turns are in it.

        Raises:
            UserError: The template writes a content otherwise than it is given, or not once.
        """
        plain = self._apply_chat_template(chat, len(chat.messages)).text
        for trimmed in (False, True):  # Many templates trim.
            messages = [
                _marked(message, trimmed=trimmed) if i in turns else message
                for i, message in enumerate(chat.messages)
            ]
            marked = self._apply_chat_template(chat._replace(messages=messages), len(messages)).text
            parts = marked.split(marks.TURN_EDGE)
            if "".join(parts) != plain or len(parts) != 2 * len(turns) + 1:
                continue
            parts = [as_typed(part, chat.restore) for part in parts]
            edges = list(itertools.accumulate(map(len, parts)))
            contents = {turn: (edges[2 * k], edges[2 * k + 1]) for k, turn in enumerate(turns)}
            return MarkedText("".join(parts), contents)
        roles = " and ".join(dict.fromkeys(chat.messages[i]["role"] for i in turns))
        raise UserError(
            f"{chat.where}: format.train_roles cannot be kept under template"
            f" {self.template.name!r}: expected that it writes each content of {roles} once, as it"
            " is given"
        )

    def _apply_chat_template(
        self, chat: Chat, n_messages: int, *, prompt: bool = False, **options: Any
    ) -> Rendered:
        """Render the first messages of a conversation: the one call of a chat template."""
        messages = chat.messages[:n_messages]
        return self.template.render(
            chat.where,
            chat.n_characters,
            **{**self._special_tokens_map, **chat.options, **options},
            messages=messages if self._form is None else self._form.write(messages),
            tools=chat.tools,
            documents=None,
            add_generation_prompt=prompt,
        )

    def _found_form(self) -> MessageForm | None:
        """The form in which the template takes messages; None if it is that of most templates."""

        def render(messages: list[dict[str, Any]]) -> str:
            chat = Chat(messages, None, {}, {}, 0, 0, None, "format")
            return self._apply_chat_template(chat, len(messages)).text

        form = message_form(render)
        return None if form == MessageForm() else form

    def _probes(self) -> list[Chat]:
        """Make the conversations that show how the template treats answers."""
        chats = []
        for record in probes(self.template.source):
            with contextlib.suppress(UserError):  # It has no place for what the probe has.
                chats.append(self.prepare(record))
        return chats


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


def _marked(message: Mapping[str, Any], *, trimmed: bool) -> dict[str, Any]:
    """Return a message whose content stands between marks, inside of white space if trimmed."""
    content = message["content"]
    core = content.strip() if trimmed else content
    before, _, after = content.partition(core) if core else ("", "", content)
    return {**message, "content": f"{before}{marks.TURN_EDGE}{core}{marks.TURN_EDGE}{after}"}


def as_typed(text: str, restore: Mapping[int, str] | None) -> str:
    """Return a text as the user typed it, which marks and their stand-ins had changed."""
    text = text.replace(marks.BREAK, "")
    return text.translate(restore) if restore else text


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
