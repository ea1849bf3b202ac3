"""Answers in what a template with `{% generation %}` wrote: the author's marks decide.

Of what stands inside the marks, three things are not what a model generates, and so no answer:
what the prompt already says (the turn's header, an opened thought), white space after the last
control token, and a block without text. What stands outside is never trained.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.answers import Answer, AnswerFinder, Found
from ift_jax.text.chat_templates.chat import Chat, Span
from ift_jax.text.chat_templates.template import Rendered


class _Block(NamedTuple):
    """What stands between `{% generation %}` and `{% endgeneration %}`: a stretch of the text."""

    start: int
    end: int


class _Habits(NamedTuple):
    """How a template treats the answers of the probes.

    Attributes:
        exact: Whether each block is one answer, to the character.
        never_rewrites: Whether it writes each answer as generation would, also when more follows.
            Then records need no check of their own, which would render each several times.
        headers: What blocks begin with that the prompt already says, the longest first.
    """

    exact: bool
    never_rewrites: bool
    headers: Sequence[str]


class TaggedAnswers(AnswerFinder):
    """Finds answers by the marks of their author."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._found_habits: dict[str, _Habits] = {}  # By the JSON of a record's options.

    def conversation(self, chat: Chat) -> list[Span] | None:
        rendered = self.apply(chat, len(chat.messages))
        turns = chat.answers
        habits = self._habits(chat)
        if habits.exact and habits.never_rewrites:  # Most templates.
            return _spans(rendered.parts, turns) if rendered.n_generated == len(turns) else None
        text, blocks = _blocks(rendered)
        if len(blocks) != len(turns):
            return None
        if not habits.never_rewrites and not self._stays(chat, text, blocks):
            return None
        if habits.exact:
            return _spans(rendered.parts, turns)
        answers = []
        for block, turn in zip(blocks, turns, strict=True):
            start, end = self._after_header(chat, text, block), self.own_end(text, *block)
            if start is None or end is None:
                return None
            answers.append(Answer(start, end, turn))
        return Found(text, answers).spans

    def last_answer(self, chat: Chat, turn: int) -> Found | None:
        text, blocks = _blocks(self.apply(chat, turn + 1))
        for prompt in self.prompts(chat, turn):
            start = len(prompt)
            own = [block for block in blocks if block.end > start]
            if own and own[0].start <= start and text.startswith(prompt):
                return self._last(chat, text, blocks[: -len(own)], own, start)
        return self._after_rewritten(chat, turn, text, blocks)

    def _last(
        self,
        chat: Chat,
        text: str,
        earlier: Sequence[_Block],
        own: Sequence[_Block],
        start: int,
    ) -> Found | None:
        """Return the last answer, which begins at `start`, in its own blocks, and earlier ones."""
        turn = len(chat.messages) - 1
        end = self.own_end(text, *own[-1])
        if end is None:
            return None
        starts = [start, *(block.start for block in own[1:])]
        ends = [*(block.end for block in own[:-1]), end]
        answers = map(Answer, starts, ends, [turn] * len(own))
        return Found(text, [*self._earlier(chat, text, earlier), *answers])

    def _after_rewritten(
        self, chat: Chat, turn: int, text: str, blocks: Sequence[_Block]
    ) -> Found | None:
        """Put an answer behind its prompt where the template rewrites the prompt once it is given.

        (GPT-OSS' leaves out the thought before a call as soon as an answer follows.) The model
        generates after the prompt, so that is what it is trained after.
        """
        prompt, earlier = _blocks(self.apply(chat, turn, prompt=True))
        own = blocks[len(earlier) :]
        start = self._after_header(chat, text, own[0]) if own else None
        if start is None or self._controls is None:
            return None
        opening = [control.start() for control in self._controls.finditer(text, 0, start)]
        if not opening or not prompt.endswith(text[opening[-1] : start]):
            return None
        shift = len(prompt) - start
        moved = [_Block(block.start + shift, block.end + shift) for block in own]
        return self._last(chat, prompt + text[start:], earlier, moved, len(prompt))

    def prompt(self, chat: Chat) -> Found:
        text, blocks = _blocks(self.apply(chat, len(chat.messages), prompt=True))
        return Found(text, self._earlier(chat, text, blocks))

    def fault(self, chat: Chat, turn: int, answer: str) -> str:
        text, blocks = _blocks(self.apply(chat, turn + 1))
        if not blocks:
            return "expected that it writes an answer inside of {% generation %}"
        end = blocks[-1].end
        if self.own_end(text, *blocks[-1]) is None:
            found = self._controls.match(text[end:].lstrip()) if self._controls else None
            if found is not None:
                return (
                    f"{{% endgeneration %}} comes before the token {found[0]!r} that stops an"
                    " answer, so that no answer would learn to stop; expected it after the token"
                )
            stop = text[blocks[-1].start : end].rpartition(answer)[2].strip()
            if stop:
                return (
                    f"its stop token {stop!r} is not one token of the tokenizer; expected a"
                    " tokenizer that has it (see tokenizer.added_tokens), or template 'plain'"
                )
            return "expected that an answer ends in a control token; nothing stops it"
        for prompt in self.prompts(chat, turn):
            if text.startswith(prompt) and len(prompt) < blocks[-1].start:
                return (
                    "expected that an answer begins where the text that prompts it ends; before"
                    f" {{% generation %}} it also writes {text[len(prompt) : blocks[-1].start]!r}"
                )
        return super().fault(chat, turn, answer)

    def _earlier(self, chat: Chat, text: str, blocks: Sequence[_Block]) -> list[Answer]:
        """Find answers that are not trained; their edges are those that they have in training."""
        answers = []
        for block in blocks:
            start, end = self._after_header(chat, text, block), self.own_end(text, *block)
            answers.append(
                Answer(
                    block.start if start is None else start,
                    block.end if end is None else end,
                )
            )
        return answers

    def _after_header(self, chat: Chat, text: str, block: _Block) -> int | None:
        """Return where an answer begins: after what the prompt says of its block."""
        for header in self._habits(chat).headers:
            if text.startswith(header, block.start, block.end):
                return block.start + len(header)
        return None

    def _habits(self, chat: Chat) -> _Habits:
        """Return how the template treats answers under the options of a record."""
        key = json.dumps(chat.options, sort_keys=True) if chat.options else ""
        if key not in self._found_habits:
            self._found_habits[key] = self._try_probes(chat.options)
        return self._found_habits[key]

    def _try_probes(self, options: Mapping[str, Any]) -> _Habits:
        exact = never_rewrites = True
        headers: set[str] = set()
        for probe in self._probes():
            chat = probe._replace(options=options)
            try:
                for turn in chat.answers:
                    header, is_exact = self._examine(chat, turn)
                    exact = exact and is_exact
                    if header is None:
                        never_rewrites = False
                    else:
                        headers.add(header)
                text, blocks = _blocks(self.apply(chat, len(chat.messages)))
            except UserError:
                continue  # The template rejects this conversation.
            if len(blocks) != len(chat.answers) or not self._stays(chat, text, blocks):
                never_rewrites = False
        return _Habits(exact, never_rewrites, sorted(headers, key=lambda h: (-len(h), h)))

    def _examine(self, chat: Chat, turn: int) -> tuple[str | None, bool]:
        """Return what precedes an answer in its block, and whether the block is the answer.

        The header is None if the answer does not follow the text that prompts it.
        """
        rendered = self.apply(chat, turn + 1)
        text, blocks = _blocks(rendered)
        if not blocks:
            return None, False
        start = self._start(chat, turn, text, blocks[-1])
        if start is None:
            return None, True
        end = self.own_end(text, *blocks[-1])
        header = text[blocks[-1].start : start]
        is_exact = not header and end == blocks[-1].end and len(blocks) == rendered.n_generated
        return header, is_exact

    def _start(self, chat: Chat, turn: int, text: str, block: _Block) -> int | None:
        """Return where the answer of a block begins; None if it follows none of its prompts."""
        for prompt in self.prompts(chat, turn):
            if block.start <= len(prompt) <= block.end and text.startswith(prompt):
                return len(prompt)
        return None

    def _stays(self, chat: Chat, text: str, blocks: Sequence[_Block]) -> bool:
        """Whether each answer follows its prompt and stays the same when it is not last."""
        for turn, block in zip(chat.answers, blocks, strict=True):
            if self._start(chat, turn, text, block) is None:
                return False
            if turn + 1 < len(chat.messages):
                end = self.own_end(text, *block)
                as_last, blocks_as_last = _blocks(self.apply(chat, turn + 1))
                if end is None or as_last[:end] != text[:end] or not blocks_as_last:
                    return False
                # What stops it must be the same, too; EOS may come after it (Phi-3).
                rest = as_last[end : blocks_as_last[-1].end]
                if self._controls is None or self._controls.sub("", rest).strip():
                    return False
        return True


def _spans(parts: Sequence[str], turns: Sequence[int]) -> list[Span]:
    """Make spans of a text's parts, of which every second one is an answer."""
    spans = [Span(part) for part in parts]
    for i, turn in enumerate(turns):
        spans[2 * i + 1] = Span(parts[2 * i + 1], True, turn)
    return spans


def _blocks(rendered: Rendered) -> tuple[str, list[_Block]]:
    """Return a text and its blocks; those that touch become one, and empty ones are left out."""
    blocks: list[_Block] = []
    at = 0
    for i, part in enumerate(rendered.parts):
        if i % 2 and part:
            if blocks and blocks[-1].end == at:
                blocks[-1] = _Block(blocks[-1].start, at + len(part))
            else:
                blocks.append(_Block(at, at + len(part)))
        at += len(part)
    return rendered.text, blocks
