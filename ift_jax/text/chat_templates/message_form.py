"""The form in which a template takes what a message says, where templates differ.

Most take a content as a text and a call's arguments as an object. Some multimodal templates read
contents as lists of parts alone, and write nothing of a text; DeepSeek's join arguments as a text.
Which form a template takes shows when it is tried. `transformers` passes on whatever it is given.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError

_QUESTION, _ANSWER, _CALLED, _GIVEN = "a question", "an answer", "called", "given"


class MessageForm(NamedTuple):
    """How messages are written for one template.

    Attributes:
        parts: Whether contents are lists of parts.
        text_arguments: Whether a call's arguments are JSON text.
    """

    parts: bool = False
    text_arguments: bool = False

    def write(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return messages in this form; the given ones have the form of most templates."""
        return [self._message(dict(message)) for message in messages]

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        calls = message.get("tool_calls")
        if self.parts:
            message["content"] = [{"type": "text", "text": message["content"]}]
        if self.text_arguments and calls:
            message["tool_calls"] = [
                {**call, "function": _with_text_arguments(call["function"])} for call in calls
            ]
        return message


_USUAL = MessageForm()


def message_form(render: Callable[[list[dict[str, Any]]], str]) -> MessageForm:
    """Return the form that a template takes.

    Args:
        render: Renders a conversation; raises a UserError if the template does.
    """
    chat = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    form = _first((_USUAL, MessageForm(parts=True)), render, chat, (_QUESTION, _ANSWER))
    function = {"name": _CALLED, "arguments": {"x": _GIVEN}}
    call = {"type": "function", "function": function, "id": "123456789"}
    calling: list[dict[str, Any]] = [
        chat[0],
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    forms = (form, form._replace(text_arguments=True))
    return _first(forms, render, calling, (_QUESTION, _CALLED, _GIVEN))


def _first(
    forms: Sequence[MessageForm],
    render: Callable[[list[dict[str, Any]]], str],
    messages: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
) -> MessageForm:
    """Return the first form in which a template writes all texts, or the first of all."""
    for form in forms:
        try:
            written = render(form.write(messages))
        except UserError:
            continue  # The template rejects it.
        if all(text in written for text in texts):
            return form
    return forms[0]


def _with_text_arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**function, "arguments": arguments}
