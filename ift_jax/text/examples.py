"""Encoding training examples: a record becomes token ids with a loss weight for each.

Where an answer begins and ends is known before anything is encoded, so each weight belongs to its
token without any search in the text.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.render import Chat, Span
from ift_jax.text.dropped import (
    NOTHING_TRAINED,
    TEMPLATE_UNSTABLE,
    UNWRITTEN,
    Dropped,
    too_long,
)
from ift_jax.text.encode_chunks import Tokens, join_pieces
from ift_jax.text.encoded import Encoded
from ift_jax.text.over_length import Cut, shorten_longest
from ift_jax.text.plain_text import plain_text_example, whole_text
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.range_weights import mask_ranges
from ift_jax.text.records import Record
from ift_jax.text.trained_turns import message_weights, one_for_each_answer, references_of
from ift_jax.text.unwritten import Unwritten, never_written

_NO_TOKENS = np.zeros(0, np.int32)


class _FittedTokens(NamedTuple):
    """Tokens of a conversation that fit their limit."""

    tokens: Tokens
    truncated: int  # How many were cut off.


class ExampleFormatter(PromptFormatter):
    """Turns records into training examples, by one format, tokenizer and set of lengths.

    The loss mask is made here, in two steps. `message_weights` gives each message a loss weight:
    0 for what is not trained. The chat template turns messages into spans, and a span that an
    answer fills names its message (`Span.message`); `_decoder_example` gives each token the weight
    of its span's message, 0 for a span without one. An encoder-decoder's targets all have the
    weight of their message. `Encoded.weights` are those of each token as a target;
    `ift_jax.data.batches` lays them out beside the targets.
    """

    def encode(self, record: Record) -> list[Encoded] | Dropped:
        """Encode all training examples of a record, or none.

        A decoder gets one example, unless the template writes an answer differently when more
        follows it. Then a decoder gets an example for each trained answer, with the messages
        before it, as an encoder-decoder always does.

        Returns:
            The examples, or why the record is dropped.

        Raises:
            UserError: The template raises it, such as for a role that it does not know, or the
                record is too long under "error".
        """
        ordered = self._ordered(record)
        return ordered if isinstance(ordered, Dropped) else self._encode_record(ordered, None)

    def _ordered(self, record: Record) -> Record | Dropped:
        """Return a record with its turns in order, or why they are not."""
        ordered = self._turn_rules.apply(record)
        return Dropped(ordered) if isinstance(ordered, str) else ordered

    def encode_each(self, records: Sequence[Record]) -> Iterator[list[Encoded] | Dropped]:
        """Yield what `encode` returns for each record.

        Each step runs for all records before the next step begins, so that its code and data stay
        in the processor's caches: that takes a sixth less time.
        """
        ordered = [self._ordered(record) for record in records]
        encoded = self._encode_conversations(ordered)
        for record, conversation in zip(ordered, encoded, strict=True):
            if isinstance(record, Dropped):
                yield record
            else:
                yield self._encode_record(record, conversation)

    def _encode_conversations(
        self, records: Sequence[Record | Dropped]
    ) -> list[Tokens | Dropped | None]:
        """Do the first step of `_encode_record` for each record.

        The result is None where that step is not needed or fails. `_encode_record` repeats a step
        that failed, so that its error is raised when its record's turn comes.
        """
        rendered: list[tuple[Chat, list[Span] | None] | None] = []
        for record in records:
            rendered.append(None)
            if isinstance(record, Dropped) or record.is_text:
                continue
            if self.architecture == "decoder" and not record.choices:
                with contextlib.suppress(UserError):
                    chat = self._renderer.prepare(record)
                    rendered[-1] = chat, self._renderer.conversation(chat)
        encoded: list[Tokens | Dropped | None] = []
        for item in rendered:
            encoded.append(None)
            if item is not None:
                with contextlib.suppress(UserError):
                    encoded[-1] = self._encode_spans(*item)
        return encoded

    def _encode_record(
        self, record: Record, conversation: Tokens | Dropped | None
    ) -> list[Encoded] | Dropped:
        """Encode a record; `conversation` is what `_encode_conversation` returns, if known."""
        if record.is_text:
            return _all_or_dropped([self._text_example(record)])
        if record.choices:
            return self._encode_with_choices(record)
        weights = message_weights(record.messages, self._format.train_on)
        trained = [i for i, weight in enumerate(weights) if weight > 0]
        if not trained:
            return NOTHING_TRAINED
        if self.architecture != "decoder":
            return _all_or_dropped(
                self._encoder_decoder_example(part, turn, weights[turn])
                for part, turn in one_for_each_answer(record, trained)
            )
        if conversation is None:
            conversation = self._encode_conversation(record)
        if isinstance(conversation, Dropped):
            return self._last_answer_examples(record, trained, weights)
        if not self._check_written(record, conversation.unwritten, trained):
            return UNWRITTEN
        example = self._decoder_example(
            record, weights, trained[-1], conversation, self._encode_conversation
        )
        return _all_or_dropped([example])

    def _encode_with_choices(self, record: Record) -> list[Encoded] | Dropped:
        """Encode a record with choices, each with the ids that it would train as the answer."""
        plain = dataclasses.replace(record, choices=())
        examples = self.encode(plain)
        if isinstance(examples, Dropped):
            return examples
        (example,) = examples
        choices = []
        for text in record.choices:
            answer = dataclasses.replace(record.messages[-1], content=text)
            messages = (*record.messages[:-1], answer)
            chosen = self.encode(dataclasses.replace(plain, messages=messages))
            if isinstance(chosen, Dropped):
                return chosen
            (as_answer,) = chosen
            choices.append((text, as_answer.tokens[as_answer.weights > 0].tolist()))
        return [dataclasses.replace(example, choices=tuple(choices))]

    def _encode_conversation(self, record: Record) -> Tokens | Dropped:
        """Encode a decoder's conversation and separate all its answers."""
        chat = self._renderer.prepare(record)
        return self._encode_spans(chat, self._renderer.conversation(chat))

    def _encode_last_answer(self, record: Record, turn: int) -> Tokens | Dropped:
        """Encode a decoder's conversation up to one answer, the only one that can be trained."""
        chat = self._renderer.prepare(record)
        return self._encode_spans(chat, self._renderer.last_answer(chat, turn))

    def _encode_spans(self, chat: Chat, spans: list[Span] | None) -> Tokens | Dropped:
        """Encode what the template wrote; `spans` is None if generation would write otherwise."""
        if spans is None:
            return TEMPLATE_UNSTABLE
        return self._with_beginning(self._encode_written(chat, spans))

    def _last_answer_examples(
        self, record: Record, trained: Sequence[int], weights: Sequence[float]
    ) -> list[Encoded] | Dropped:
        """Make an example for each trained answer, which ends in that answer."""
        examples: list[Encoded | Dropped] = []
        left_out: list[tuple[int, frozenset[Unwritten]]] = []
        for part, turn in one_for_each_answer(record, trained):
            encode = functools.partial(self._encode_last_answer, turn=turn)
            tokens = encode(part)
            if isinstance(tokens, Dropped):
                return tokens
            left_out.append((turn, tokens.unwritten))
            alone = [0.0] * turn + [weights[turn]]
            examples.append(self._decoder_example(part, alone, turn, tokens, encode))
        missing = never_written(left_out)
        if not self._check_written(record, missing, trained):
            return UNWRITTEN
        made = _all_or_dropped(examples)
        if isinstance(made, Dropped):
            return made
        first, *others = (dataclasses.replace(example, unwritten=()) for example in made)
        return [dataclasses.replace(first, unwritten=_field_names(missing)), *others]

    def _text_example(self, record: Record) -> Encoded | Dropped:
        """Make the example of a plain text."""
        if self.architecture != "decoder":
            raise UserError(
                f"{record.where}: a row with 'text' alone trains a decoder; an encoder-decoder"
                " needs inputs and targets"
            )
        tokens = self._encode(*self._renderer.plain_text(record))
        pieces = whole_text(tokens.pieces, self.tokenizer, self.empty_prompt, self.stop_ids)
        if not pieces:
            return NOTHING_TRAINED
        uncut = [False] * len(pieces)
        if self.limits.fit(pieces, uncut, "max_length", record.where) is None:
            return too_long("max_length", sum(map(len, pieces)))
        return plain_text_example(pieces, record.messages[0])

    def _decoder_example(
        self,
        record: Record,
        weights: Sequence[float],
        turn: int,
        tokens: Tokens,
        encode: Callable[[Record], Tokens | Dropped],
    ) -> Encoded | Dropped:
        """Make the example of a decoder.

        Args:
            record: The record.
            weights: The loss weight of each message.
            turn: The last trained answer.
            tokens: The encoded conversation.
            encode: Encodes the record again, if its contents have to be cut.
        """
        cuttable = [i for i, weight in enumerate(weights) if not weight]
        fitted = self._fit(record, tokens, cuttable, "max_length", encode)
        if isinstance(fitted, Dropped):
            return fitted
        pieces, spans, control_strings, unwritten = fitted.tokens
        lengths = [len(piece) for piece in pieces]
        messages = [span.message for span in spans]
        piece_weights = np.array([0.0 if m is None else weights[m] for m in messages], np.float32)
        trained = [i for i, weight in enumerate(piece_weights.tolist()) if weight and lengths[i]]
        if not trained:
            return TEMPLATE_UNSTABLE
        ids = join_pieces(pieces)
        token_weights = np.repeat(piece_weights, lengths)
        prefix_length = sum(lengths[: trained[0]])
        if any(message.ranges for message in record.messages):
            owners = np.repeat([-1 if m is None else m for m in messages], lengths)
            mask_ranges(token_weights, ids, owners, record, self.tokenizer)
            if not token_weights.any():
                return NOTHING_TRAINED
            prefix_length = int((token_weights > 0).argmax())
        return Encoded(
            tokens=ids,
            weights=token_weights,
            encoder_tokens=_NO_TOKENS,
            prompt_length=sum(lengths[: messages.index(turn)]),
            prefix_length=prefix_length,
            references=references_of(record, turn),
            truncated=fitted.truncated,
            control_strings=control_strings,
            unwritten=_field_names(unwritten),
        )

    def _encoder_decoder_example(
        self, record: Record, turn: int, weight: float
    ) -> Encoded | Dropped:
        """Make an encoder-decoder's example of one answer, with the messages before it."""
        message = record.messages[turn]
        if message.tool_calls or message.function_calls or message.reasoning_content:
            raise UserError(
                f"{record.where}: messages[{turn}]: an encoder-decoder answers with text alone;"
                " expected no tool_calls and no reasoning_content"
            )
        inputs = self._fit_inputs(dataclasses.replace(record, messages=record.messages[:turn]))
        if isinstance(inputs, Dropped):
            return inputs
        if not self._check_written(record, inputs.tokens.unwritten, trained=()):
            return UNWRITTEN
        answer_alone = dataclasses.replace(record, messages=(message,), tools=())
        answer = self._encode_first_message(answer_alone)
        targets = [*answer.pieces, [self.tokenizer.eos_id]]
        uncut = [False] * len(targets)
        if self.limits.fit(targets, uncut, "targets_length", record.where) is None:
            return too_long("targets_length", sum(map(len, targets)))
        ids = join_pieces(targets)
        weights = np.full(ids.shape, weight, np.float32)
        if message.ranges:
            mask_ranges(weights, ids, np.full(ids.shape, turn), record, self.tokenizer)
        return Encoded(
            tokens=ids,
            weights=weights,
            encoder_tokens=join_pieces(inputs.tokens.pieces),
            prompt_length=0,
            prefix_length=0,
            references=references_of(record, turn),
            truncated=inputs.truncated,
            control_strings=inputs.tokens.control_strings + answer.control_strings,
            unwritten=_field_names(inputs.tokens.unwritten),
        )

    def fit(
        self, pieces: Sequence[list[int]], may_cut: Sequence[bool], field: str, where: str
    ) -> Cut | Dropped:
        """Fit pieces of ids into a limit as `LengthLimits.fit` does, or drop their record."""
        cut = self.limits.fit(pieces, may_cut, field, where)
        return cut or too_long(field, sum(map(len, pieces)))

    def _fit_inputs(self, record: Record) -> _FittedTokens | Dropped:
        """Encode what an encoder reads, and make it fit."""
        tokens = self._encode_inputs(record)
        if not record.text_to_text:
            every_message = range(len(record.messages))
            return self._fit(record, tokens, every_message, "inputs_length", self._encode_inputs)
        n_text = len(tokens.pieces) - int(self._format.input_eos)  # EOS is never cut off.
        may_cut = [i < n_text for i in range(len(tokens.pieces))]
        cut = self.fit(tokens.pieces, may_cut, "inputs_length", record.where)
        if isinstance(cut, Dropped):
            return cut
        return _FittedTokens(tokens._replace(pieces=cut.pieces), cut.truncated)

    def _fit(
        self,
        record: Record,
        tokens: Tokens,
        cuttable: Sequence[int],
        field: str,
        encode: Callable[[Record], Tokens | Dropped],
    ) -> _FittedTokens | Dropped:
        """Cut the ends of the longest contents and encode a conversation again until it fits.

        Args:
            record: The record.
            tokens: The encoded conversation.
            cuttable: The messages whose contents may be cut.
            field: The limit, as a field of the config.
            encode: Encodes the record again.
        """
        limit = self.limits.of(field)
        size = tokens.size
        if size <= limit:
            return _FittedTokens(tokens, 0)
        if self.limits.over_length != "truncate-prompt":
            uncut = [False] * len(tokens.pieces)
            if self.limits.fit(tokens.pieces, uncut, field, record.where) is None:
                return too_long(field, size)
        contents = {i: self.tokenizer.encode(record.messages[i].content, "text") for i in cuttable}
        excess, most = size - limit, sum(map(len, contents.values()))
        while excess <= most:
            shorter = self._shorten_contents(record, contents, excess)
            encoded = encode(shorter)
            if isinstance(encoded, Dropped):
                return encoded
            over = encoded.size - limit
            if over <= 0:
                if self.architecture == "decoder" and self._prompt_is_gone(encoded):
                    return too_long(field, size)
                return _FittedTokens(encoded, size - encoded.size)
            if excess == most:
                return too_long(field, size)
            # The ids of a cut text need not be a prefix of the ids of the whole text.
            excess = min(excess + over, most)
        return too_long(field, size)

    def _shorten_contents(
        self, record: Record, contents: dict[int, list[int]], excess: int
    ) -> Record:
        """Cut tokens from the ends of the longest contents, `excess` in all."""
        messages = list(record.messages)
        kept = shorten_longest([len(ids) for ids in contents.values()], excess)
        for (i, ids), keep in zip(contents.items(), kept, strict=True):
            if keep == len(ids):
                continue
            whole = messages[i].content
            # A character whose bytes were cut decodes to U+FFFD.
            text = self.tokenizer.decode(ids[:keep]).rstrip("\ufffd")
            if not whole.startswith(text):  # It was normalized, or a space is missing.
                text = whole[: len(whole) * keep // len(ids)]
            messages[i] = dataclasses.replace(messages[i], content=text)
        return dataclasses.replace(record, messages=tuple(messages))

    def _prompt_is_gone(self, tokens: Tokens) -> bool:
        """Whether nothing is left before a decoder's first answer."""
        return tokens.pieces[0] == self.empty_prompt and tokens.spans[1].is_answer


def _all_or_dropped(examples: Iterable[Encoded | Dropped]) -> list[Encoded] | Dropped:
    """Collect the examples of a record; if one of them is dropped, so is the record."""
    found = []
    for example in examples:
        if isinstance(example, Dropped):
            return example
        found.append(example)
    return found


def _field_names(left_out: Iterable[Unwritten]) -> tuple[str, ...]:
    """Return the names of the fields, each once."""
    return tuple(sorted({item.field for item in left_out}))
