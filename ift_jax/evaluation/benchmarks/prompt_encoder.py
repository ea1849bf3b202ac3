"""The prompts of a benchmark as ids: plain text, or turns of a conversation."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.config.schema import DecoderConfig
from ift_jax.evaluation.benchmarks.base import Benchmark, Item, Solved
from ift_jax.evaluation.continuations import (
    continuation_of_record,
    continuation_of_texts,
    plain_prompt,
)
from ift_jax.evaluation.rank_choices import Choices
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.text.records import Message, Record

_BETWEEN = "\n\n"  # What stands between two examples in plain text.


@dataclasses.dataclass(frozen=True)
class PromptStyle:
    """How prompts are written.

    Attributes:
        chat: Whether a prompt is the user's turn in the model's own format, rather than plain text.
        as_turns: Whether each solved example is a turn of the user and one of the assistant.
    """

    chat: bool = True
    as_turns: bool = False


class Fitted(NamedTuple):
    """A prompt that fits the model.

    Attributes:
        ranked: The prompt, with the choices if there are any.
        n_left_out: How many solved examples were left out so that it fits.
    """

    ranked: Choices
    n_left_out: int


class PromptEncoder:
    """Encodes the items of one benchmark for one model."""

    def __init__(
        self,
        text_generator: TextGenerator,
        benchmark: Benchmark,
        style: PromptStyle,
        max_new_tokens: int,
    ):
        """Take the model's format.

        Args:
            text_generator: The model without weights.
            benchmark: The benchmark.
            style: How prompts are written.
            max_new_tokens: The most tokens of a generated answer.
        """
        self._text_generator = text_generator
        self._tokenizer = text_generator.tokenizer
        self._benchmark = benchmark
        model = text_generator.config.model
        self._is_decoder = isinstance(model, DecoderConfig)
        # An encoder-decoder reads a bare text in either style.
        self._style = style if style.chat or self._is_decoder else PromptStyle()
        self._limit = model.max_length if isinstance(model, DecoderConfig) else 0
        self._max_new_tokens = max_new_tokens

    def fitted(self, item: Item, answers: Sequence[str] = ()) -> Fitted | None:
        """Encode an item with as many of its solved examples as fit, the last ones.

        Args:
            item: The item.
            answers: The answers to its earlier turns.

        Returns:
            The prompt, or None if it does not fit even without solved examples.
        """
        for n_left_out in range(len(item.solved) + 1):
            ranked = self._encoded(item, item.solved[n_left_out:], answers)
            longest = max(map(len, ranked.answers), default=self._max_new_tokens)
            if not self._limit or len(ranked.prompt) + longest <= self._limit:
                return Fitted(ranked, n_left_out)
        return None

    def _encoded(self, item: Item, solved: Sequence[Solved], answers: Sequence[str]) -> Choices:
        if not self._style.chat:
            return self._plain(item, self._text(item, solved))
        messages = self._messages(item, solved, answers)
        if not item.choices:
            prompt = self._text_generator.formatter.prompt(self._record(messages, item)).tolist()
            return Choices(prompt, [], len(prompt))
        stop_ids = self._text_generator.formatter.stop_ids
        rows = [
            continuation_of_record(
                self._text_generator.config,
                self._tokenizer,
                self._record([*messages, Message("assistant", choice)], item),
            )
            for choice in item.choices
        ]
        # The stop token is left out: a choice is compared by its own text.
        ids = [_without_end(row.answer, stop_ids) for row in rows]
        return Choices(list(rows[0].prompt), ids, rows[0].prefix_length)

    def _plain(self, item: Item, text: str) -> Choices:
        bos = self._tokenizer.adds_bos
        if not item.choices:
            prompt = plain_prompt(self._tokenizer, text, bos=bos)
            return Choices(prompt, [], len(prompt))
        rows = [
            continuation_of_texts(self._tokenizer, text, self._benchmark.joint + choice, bos=bos)
            for choice in item.choices
        ]
        return Choices(
            list(rows[0].prompt), [list(row.answer) for row in rows], rows[0].prefix_length
        )

    def _text(self, item: Item, solved: Sequence[Solved]) -> str:
        joint = self._benchmark.joint
        shown = [f"{one.question}{joint}{one.answer}{_BETWEEN}" for one in solved]
        return "".join([item.instruction, *shown, item.question])

    def _messages(
        self, item: Item, solved: Sequence[Solved], answers: Sequence[str]
    ) -> list[Message]:
        """Return the turns before an answer."""
        if self._style.as_turns:
            turns = [text for one in solved for text in one]
            turns.append(item.question)
            turns[0] = item.instruction + turns[0]
        else:
            turns = [self._text(item, solved)]
        for answer, follow_up in zip(answers, item.follow_ups, strict=False):
            turns += [answer, follow_up]
        return [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(turns)]

    def _record(self, messages: Sequence[Message], item: Item) -> Record:
        where = f"{self._benchmark.name}: {item.id}"
        # A single question is a bare text for an encoder-decoder, as in its training.
        return Record(tuple(messages), where=where, text_to_text=len(messages) <= 2)


def _without_end(ids: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    n = len(ids)
    while n > 1 and ids[n - 1] in stop_ids:
        n -= 1
    return list(ids[:n])
