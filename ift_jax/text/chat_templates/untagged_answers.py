"""Answers in what a template without `{% generation %}` wrote.

An answer begins where the text of its prompt ends. `AnswerFinder.closing` says where it ends.
"""

import functools
from collections.abc import Sequence

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.answers import Answer, AnswerFinder, Found
from ift_jax.text.chat_templates.chat import Chat, Span


class UntaggedAnswers(AnswerFinder):
    """Finds answers by rendering each of them with the text that prompts it."""

    def conversation(self, chat: Chat) -> list[Span] | None:
        text = self._text(chat)
        answers: list[Answer] = []
        for turn in chat.answers:
            answer = self._find(chat, text, turn, answers[-1].end if answers else 0)
            if answer is None:
                return None
            answers.append(answer)
        return Found(text, answers).spans

    def last_answer(self, chat: Chat, turn: int) -> Found | None:
        text = self._text(chat)
        for prompt in self.prompts(chat, turn):
            if text.startswith(prompt):
                break
        else:
            return None
        end = self._end(text, chat, turn, len(prompt))
        if end is None:
            return None
        earlier = self._find_some(chat, prompt, chat.answers[:-1])
        return Found(text, [*earlier, Answer(len(prompt), end, turn)])

    def prompt(self, chat: Chat) -> Found:
        text = self.apply(chat, len(chat.messages), prompt=True).text
        return Found(text, self._find_some(chat, text, chat.answers))

    @functools.cached_property
    def _compares(self) -> bool:
        """Whether the end of an answer shows only when the conversation goes on."""
        for chat in self._probes():
            turn = chat.answers[0]
            try:
                answered = self.apply(chat, turn + 1).text
            except UserError:
                continue  # The template rejects this conversation.
            own = self.own_end(answered, 0)
            return own is None or own != self.closing(answered, self.going_on(chat, turn), 0)
        return False

    @functools.cached_property
    def _next_turns(self) -> dict[str, str]:
        """What the template writes after an answer that it does not end, by the next turn's role.

        It ends in the token that opens the turn, which is what stops the answer.
        """
        found: dict[str, str] = {}
        for chat in self._probes():
            for turn in chat.answers:
                try:
                    answered = self.apply(chat, turn + 1).text
                except UserError:
                    continue  # The template rejects this conversation.
                continued = self.going_on(chat, turn)
                end = self.closing(answered, continued, 0)
                if continued is not None and end is not None and end > len(answered.rstrip()):
                    role = "tool" if chat.messages[turn].get("tool_calls") else "user"
                    found.setdefault(role, continued[len(answered.rstrip()) : end])
        return found

    def _text(self, chat: Chat) -> str:
        """Render a conversation, with the token that stops its last answer."""
        text = self.apply(chat, len(chat.messages)).text
        last = chat.messages[-1]
        if last["role"] != "assistant" or not self._compares or self.own_end(text, 0) is not None:
            return text
        role = "tool" if last.get("tool_calls") else "user"
        return text.rstrip() + self._next_turns.get(role, "")

    def _find_some(self, chat: Chat, text: str, turns: Sequence[int]) -> list[Answer]:
        """Find as many of the given answers as possible; they are not trained."""
        answers: list[Answer] = []
        for turn in turns:
            answer = self._find(chat, text, turn, answers[-1].end if answers else 0)
            if answer is not None:
                answers.append(answer._replace(message=None))
        return answers

    def _find(self, chat: Chat, text: str, turn: int, earliest: int) -> Answer | None:
        """Find an answer: what its turn adds to the text of its prompt.

        Args:
            chat: The conversation.
            text: What the template wrote of it.
            turn: The index of the answer among the messages.
            earliest: Where the answer before it ends.
        """
        is_last = turn + 1 == len(chat.messages)
        answered = text if is_last else self.apply(chat, turn + 1).text
        for prompt in self.prompts(chat, turn):
            if answered.startswith(prompt):
                break
        else:
            return None
        start = len(prompt)
        if is_last:
            end = self._end(answered, chat, turn, start)
        else:
            end = self.closing(answered, text if self._compares else None, start)
        if end is None or start < earliest or answered[:end] != text[: min(end, len(answered))]:
            return None
        return Answer(start, end, turn)

    def _end(self, answered: str, chat: Chat, turn: int, start: int) -> int | None:
        """Return the end of the last answer."""
        continued = self.going_on(chat, turn) if self._compares else None
        return self.closing(answered, continued, start)
