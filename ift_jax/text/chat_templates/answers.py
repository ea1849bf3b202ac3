"""Finding the answers in what a chat template wrote: what both ways of finding them share.

An answer is what a model generates: it begins exactly where the text that prompts it ends, and ends
in the control token that stops it. Where a template's author marked answers by
`{% generation %}`, the marks say where they are (`tagged_answers`). Elsewhere they are what a
conversation gains over the text of its prompt (`untagged_answers`).
"""

import abc
import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.chat import Chat, Span
from ift_jax.text.chat_templates.template import SWITCHES, Rendered, Template

# What a prompt may write at its end so that the model thinks, or does not. An answer that has none
# of it follows the prompt without it.
_OPENING = r"(?:<think(?:ing)?>|<seed:think>|\[THINK\]|<\|START_THINKING\|>|<\|channel>thought)"
_THOUGHT = re.compile(rf"(?:{_OPENING}\s*|<think(?:ing)?>\s*</think(?:ing)?>\s*)\Z")
_NEXT_TURN = "?"  # The content of a turn that is put behind an answer to see what stops it.


def writes_thought(prompt: str) -> bool:
    """Whether a prompt opens a thought, or says that there is none."""
    return _THOUGHT.search(prompt) is not None


class Apply(Protocol):
    """Renders the first messages of a conversation; `options` are variables of the template."""

    def __call__(
        self, chat: Chat, n_messages: int, *, prompt: bool = False, **options: Any
    ) -> Rendered: ...


class Answer(NamedTuple):
    """A stretch of a text, half-open, that a model generates."""

    start: int
    end: int  # The index after its last character.
    message: int | None = None  # The message that it is, if it may be trained.


class Found(NamedTuple):
    """A text and the answers in it, in order."""

    text: str
    answers: Sequence[Answer]

    @property
    def spans(self) -> list[Span]:
        """The text as spans, which alternate between other text and answers."""
        spans: list[Span] = []
        at = 0
        for start, end, message in self.answers:
            spans += (Span(self.text[at:start]), Span(self.text[start:end], True, message))
            at = end
        spans.append(Span(self.text[at:]))
        return spans


class AnswerFinder(abc.ABC):
    """Finds the answers that one template wrote.

    Attributes:
        template: The template.
        apply: Renders with it.
    """

    def __init__(
        self,
        template: Template,
        controls: re.Pattern[str] | None,
        apply: Apply,
        probes: Callable[[], list[Chat]],
    ):
        """Set up the finder.

        Args:
            template: The template.
            controls: Finds control strings; None if there are none.
            apply: Renders with the template.
            probes: Makes short conversations that show how the template treats answers.
        """
        self.template = template
        self.apply = apply
        self._controls = controls
        self._probes = probes

    @abc.abstractmethod
    def conversation(self, chat: Chat) -> list[Span] | None:
        """Render a whole conversation and separate all its answers.

        Returns:
            The spans, or None if some answer does not follow the text that prompts it, or if the
            template writes it differently when more follows.
        """

    @abc.abstractmethod
    def last_answer(self, chat: Chat, turn: int) -> Found | None:
        """Render a conversation up to one answer, the only one that may be trained.

        Args:
            chat: The conversation up to the answer.
            turn: The index of the answer among the messages.

        Returns:
            The answers, or None if not even this answer follows the text that prompts it.
        """

    @abc.abstractmethod
    def prompt(self, chat: Chat) -> Found:
        """Render the prompt of the next answer and find the earlier answers, all untrained."""

    def fault(self, chat: Chat, turn: int, answer: str) -> str:
        """Return why an answer is not found.

        Args:
            chat: The conversation.
            turn: The index of the answer among the messages.
            answer: The text of the answer.
        """
        text = self.apply(chat, turn + 1).text
        for prompt in self.prompts(chat, turn):
            if text.startswith(prompt):
                if answer not in text[len(prompt) :]:
                    return (
                        "expected that an answer follows the text that prompts it; it writes none"
                    )
                return (
                    "expected that an answer ends in a control token of the tokenizer; it ends in"
                    f" {text[len(prompt) :][-20:]!r} (see tokenizer.added_tokens)"
                )
        own = next(self.prompts(chat, turn))
        common = len(os.path.commonprefix((own, text)))
        return (
            "expected that an answer follows the text that prompts it; the prompt ends in"
            f" {own[common:][-40:]!r} where the conversation has {text[common:][:40]!r}"
        )

    def stops(self, plain: Chat) -> list[str]:
        """Return the control strings that end answers, first that of a plain one.

        Args:
            plain: A question and its answer.

        Returns:
            Also those of the probes' answers, such as calls; none if the plain one has none.
        """
        stops = dict.fromkeys(self._stops_of(plain, 1))
        for chat in self._probes() if stops else ():
            for turn in chat.answers:
                upto = chat._replace(messages=chat.messages[: turn + 1])
                with contextlib.suppress(UserError):  # The template rejects this conversation.
                    stops |= dict.fromkeys(self._stops_of(upto, turn))
        return list(stops)

    def _stops_of(self, chat: Chat, turn: int) -> Iterator[str]:
        """Yield the control strings that end the last answer of a conversation."""
        found = self.last_answer(chat, turn)
        if found is None or self._controls is None:
            return
        start, end, _ = found.answers[-1]
        ends = {end, self.closing(found.text[:end], self.going_on(chat, turn), start)}
        for control in self._controls.finditer(found.text, start):
            if control.end() in ends:
                yield control[0]

    def prompts(self, chat: Chat, turn: int) -> Iterator[str]:
        """Yield the texts that an answer may follow, that of generation first.

        An answer with a thought may follow the prompt that asks for one, and one without a thought
        the prompt that asks for none, unless the config or the record says which. What the prompt
        writes of a thought may also be absent, unless they say which and the answer has a thought.
        """
        own = self.apply(chat, turn, prompt=True).text
        yield own
        for options in self._switched(chat):
            yield self.apply(chat, turn, prompt=True, **options).text
        is_switched = self.template.is_switched or bool(set(SWITCHES) & set(chat.options))
        if is_switched and _has_thought(chat.messages[turn]):
            return
        without_thought = _THOUGHT.sub("", own)
        if without_thought != own:
            yield without_thought

    def _switched(self, chat: Chat) -> Iterator[Mapping[str, bool]]:
        """Yield the settings of the thinking switch, if the template has one that is not set."""
        for name in self.template.switches:
            if name not in chat.options:
                yield {name: True}
                yield {name: False}

    def going_on(self, chat: Chat, turn: int) -> str | None:
        """Render a conversation with an answer that another turn follows; None if it cannot be."""
        answer = chat.messages[turn]
        following = {"role": "user", "content": _NEXT_TURN}
        if answer.get("tool_calls"):
            call = answer["tool_calls"][0]
            following |= {"role": "tool", "name": call["function"]["name"]}
            following |= {"tool_call_id": call["id"]} if "id" in call else {}
        messages = [*chat.messages[: turn + 1], following]
        try:
            return self.apply(chat._replace(messages=messages), len(messages)).text
        except UserError:
            return None

    def own_end(self, text: str, start: int, end: int | None = None) -> int | None:
        """Return the end of an answer that ends in a control token: white space may follow it."""
        stop = len(text) if end is None else end
        if self._controls is None:
            return None
        last = None
        for last in self._controls.finditer(text, start, stop):  # noqa: B007
            pass
        if last is None or text[last.end() : stop].strip():
            return None
        return last.end()

    def closing(self, answered: str, continued: str | None, start: int) -> int | None:
        """Return where an answer without tags ends.

        It ends in the last control token that the template also writes there when the conversation
        goes on. (Phi-3's ends in `<|end|>`, which EOS follows at the end of a conversation.) If
        the template writes none at all, the token that opens the next turn ends it, as GLM-4's.

        Args:
            answered: The conversation up to the answer.
            continued: The conversation when it goes on, if it is to be compared.
            start: Where the answer begins.

        Returns:
            The index, in `continued` if it is after the end of `answered`; None if nothing ends
            the answer.
        """
        own = self.own_end(answered, start)
        if continued is None or self._controls is None:
            return own
        common = len(os.path.commonprefix((answered, continued)))
        if own is not None and own <= common:
            return own
        if common >= start:
            written = answered.rstrip()
            if own is None and common >= len(written):
                blank = len(continued[len(written) :]) - len(continued[len(written) :].lstrip())
                following = self._controls.match(continued, len(written) + blank)
                return following.end() if following else None
            for control in reversed(list(self._controls.finditer(answered, start, common))):
                rest = self._controls.sub("", answered[control.end() :])
                return own if rest.strip() else control.end()
        return own


def _has_thought(message: Mapping[str, Any]) -> bool:
    """Whether an answer has a thought, in a field of its own or at the beginning of its text."""
    content = message.get("content")
    in_text = isinstance(content, str) and re.match(rf"\s*{_OPENING}", content)
    return bool(message.get("reasoning_content") or in_text)
