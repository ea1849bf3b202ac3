"""Marking: a whole conversation as one text, each of its answers where generation writes it."""

from collections.abc import Sequence

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.render import Chat, Marked, Renderer, answers_of
from ift_jax.text.chat_templates.sandbox import CLOSE, OPEN, Template
from ift_jax.text.records import Message, Record
from ift_jax.text.tokenizers.base import Tokenizer

_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}, "id": "123456789"}
_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}


class MarkingRenderer(Renderer):
    """Renders conversations to be trained on."""

    def __init__(self, template: Template, tokenizer: Tokenizer, break_controls: bool):
        """As `Renderer`; probes the template."""
        super().__init__(template, tokenizer, break_controls)
        # In each probe all answers stand where generation would have written them: then a record
        # needs no check of its own.
        self._stable = False
        self._stable = self._tagged and all(map(self._is_stable, probes(template.source)))

    def whole(self, chat: Chat) -> Marked | None:
        """The conversation with all its answers marked.

        Returns None if one of them does not stand where and as generation would have written it.
        """
        turns = answers_of(chat)
        text = self.text(chat, len(chat.messages))
        if not self._tagged:
            return self._mark_all(chat, text, turns)
        if text.count(OPEN) != len(turns) or not (self._stable or self._checked(chat, text, turns)):
            return None
        return Marked(text, turns)

    def _checked(self, chat: Chat, text: str, turns: Sequence[int]) -> bool:
        """Whether tagged answers follow their prompts and are what they are when they are last."""
        start = -1
        for turn in turns:
            start = text.index(OPEN, start + 1)
            answered = text[: text.index(CLOSE, start) + 1]
            if self.text(chat, turn, prompt=True) != text[:start]:
                return False
            last = turn + 1 == len(chat.messages)
            if not last and not self.text(chat, turn + 1).startswith(answered):
                return False
        return True

    def _is_stable(self, record: Record) -> bool:
        try:
            return self.whole(self.chat(record)) is not None
        except UserError:
            return True  # The template has no such conversation.


def probes(source: str) -> list[Record]:
    """Conversations that a template may treat differently at their end than in the middle."""
    user, answer = Message("user", "1 + 1?"), Message("assistant", "2")
    rounds = (user, answer, Message("user", "Why?"), Message("assistant", "So."))
    thought = Message("assistant", "<think>\nAdd.\n</think>\n\n2")
    chats = [
        Record(rounds, where="probe"),
        Record((Message("system", "Be brief."), *rounds), where="probe"),
        Record((user, thought, *rounds[2:]), where="probe"),
    ]
    if "reasoning_content" in source or "thinking" in source:
        thoughtful = Message("assistant", "2", reasoning_content="Add.")
        chats.append(Record((user, thoughtful, *rounds[2:]), where="probe"))
    if "tool_calls" in source and "tools" in source:
        call = Message("assistant", "", tool_calls=(_CALL,))
        result = Message("tool", "7", tool_call_id="123456789", name="f")
        chats.append(Record((user, call, result, *rounds[1:]), where="probe", tools=(_TOOL,)))
    return chats
