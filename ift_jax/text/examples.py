"""Encoding training examples: a record becomes token ids with a loss weight for each.

Where an answer begins and ends is known before anything is encoded, so each weight belongs to its
token without any search in the text.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError
from ift_jax.text import conversation_parts
from ift_jax.text.chat_templates.render import Chat, Span
from ift_jax.text.choices import encode_with_choices
from ift_jax.text.conversation_parts import Part
from ift_jax.text.dropped import (
    NOTHING_TRAINED,
    TEMPLATE_UNSTABLE,
    UNWRITTEN,
    Dropped,
    too_long,
)
from ift_jax.text.encode_chunks import Tokens, join_pieces
from ift_jax.text.encoded import (
    DROPPED_THOUGHTS,
    FURTHER_EXAMPLES,
    REPEATED_TOKENS,
    Encoded,
    all_or_dropped,
)
from ift_jax.text.fit_conversation import ConversationFitter, FittedTokens
from ift_jax.text.other_turns import turn_tokens
from ift_jax.text.over_length import Cut
from ift_jax.text.pairs import encode_pair
from ift_jax.text.plain_text import plain_text_example, whole_text
from ift_jax.text.policies import Policy
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.range_weights import mask_ranges
from ift_jax.text.records import Record
from ift_jax.text.token_weights import token_weights
from ift_jax.text.trained_turns import message_weights, one_for_each_answer, references_of
from ift_jax.text.unwritten import Unwritten, field_names, never_written

_NO_TOKENS = np.zeros(0, np.int32)


class ExampleFormatter(PromptFormatter):
    """Turns records into training examples, by one format, tokenizer and set of lengths.

    The loss mask is made here, in two steps. `message_weights` gives each message a loss weight:
    0 for what is not trained. The chat template turns messages into spans, and a span that an
    answer fills names its message (`Span.message`); `token_weights` gives each token the weight
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
        """Return a record with its turns in order, or why it is dropped."""
        if unwanted := self.filters.reason(record):
            return Dropped(unwanted)
        ordered = self._turn_rules.apply(record)
        return Dropped(ordered) if isinstance(ordered, str) else ordered

    @property
    def _fitter(self) -> ConversationFitter:
        is_decoder = self.architecture == "decoder"
        return ConversationFitter(
            self.tokenizer, self.limits, self.empty_prompt if is_decoder else None
        )

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
            if isinstance(record, Dropped) or record.is_text or record.rejected:
                continue
            if self.architecture == "decoder" and not record.choices:
                with contextlib.suppress(UserError):
                    policy = self.policy_of(record)
                    if policy.earlier_thinking == "drop":
                        continue  # Another text may be encoded.
                    chat = self._renderer.prepare(self._with_thinking(record, policy))
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
        if record.rejected:
            return encode_pair(
                record, self.limits, lambda side, limits: self.with_limits(limits).encode(side)
            )
        if record.is_text:
            return all_or_dropped([self._text_example(record)])
        if record.choices:
            return encode_with_choices(record, self.policy_of(record), self.encode)
        policy = self.policy_of(record)
        weights = message_weights(record, policy)
        if not any(weight > 0 for weight in weights):
            return NOTHING_TRAINED
        record = self._with_thinking(record, policy)
        made: list[Encoded] = []
        for part in conversation_parts.parts(record, weights, policy):
            if self.architecture == "decoder":
                # A part of which a policy leaves nothing to train shares nothing with another.
                own = part._replace(shared=part.shared if made else 0)
                examples = self._part_examples(own, policy, conversation)
            else:
                examples = all_or_dropped(
                    self._encoder_decoder_example(upto, turn, part.weights[turn], policy)
                    for upto, turn in one_for_each_answer(part.record, part.trained)
                )
            if isinstance(examples, list):
                made += examples
            elif examples != NOTHING_TRAINED:
                return examples
        return made or NOTHING_TRAINED

    def _part_examples(
        self, part: Part, policy: Policy, conversation: Tokens | Dropped | None
    ) -> list[Encoded] | Dropped:
        """Encode a part of a conversation for a decoder; `conversation` is its tokens, if known."""
        if conversation is None:
            conversation = self._encode_conversation(part.record)
        if isinstance(conversation, Dropped):
            return self._last_answer_examples(part, policy)
        self._check_kept(part.record, conversation.unwritten, policy)
        if not self._check_written(part.record, conversation.unwritten, part.trained):
            return UNWRITTEN
        example = self._decoder_example(part, policy, conversation, self._encode_conversation)
        return all_or_dropped([example])

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

    def _encode_before_answer(self, record: Record) -> Tokens | Dropped:
        """Encode a decoder's conversation up to another turn than an answer, as a prompt."""
        chat = self._renderer.prepare(record)
        return self._encode_spans(chat, self._renderer.prompt(chat))

    def _last_answer_examples(self, part: Part, policy: Policy) -> list[Encoded] | Dropped:
        """Make an example for each trained answer, which ends in that answer.

        Other trained turns are in the example of the next answer, or in one of their own.
        """
        record, trained = part.record, part.trained
        answers = [i for i in trained if record.messages[i].role == "assistant"]
        ends = answers if trained[-1] in answers else [*answers, trained[-1]]
        examples: list[Encoded | Dropped] = []
        left_out: list[tuple[int, frozenset[Unwritten]]] = []
        shared = part.shared
        for upto, turn in one_for_each_answer(record, ends):
            encode: Callable[[Record], Tokens | Dropped] = self._encode_before_answer
            if turn in answers:
                encode = functools.partial(self._encode_last_answer, turn=turn)
            tokens = encode(upto)
            if isinstance(tokens, Dropped):
                return tokens
            left_out.append((turn, tokens.unwritten))
            own = [w if i >= shared else 0.0 for i, w in enumerate(part.weights[: turn + 1])]
            is_followed = part.is_followed or turn != ends[-1]
            alone = Part(upto, own, shared, part.dropped, is_followed)
            examples.append(self._decoder_example(alone, policy, tokens, encode))
            if examples[-1] != NOTHING_TRAINED:
                shared = turn + 1
        self._check_kept(record, left_out[-1][1], policy)
        missing = never_written(left_out)
        if not self._check_written(record, missing, trained):
            return UNWRITTEN
        made = all_or_dropped(examples)
        if isinstance(made, Dropped):
            return made
        first, *others = (dataclasses.replace(example, unwritten=()) for example in made)
        return [dataclasses.replace(first, unwritten=field_names(missing)), *others]

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
        return plain_text_example(pieces, record)

    def _decoder_example(
        self,
        part: Part,
        policy: Policy,
        tokens: Tokens,
        encode: Callable[[Record], Tokens | Dropped],
    ) -> Encoded | Dropped:
        """Make the example of a decoder.

        Args:
            part: The conversation, and which turns of it are trained.
            policy: Its policy.
            tokens: The encoded conversation.
            encode: Encodes the record again, if its contents have to be cut.
        """
        weights = part.weights
        cuttable = [i for i, weight in enumerate(weights) if not weight]
        fitted = self._fitter.fit(part.record, tokens, cuttable, "max_length", encode)
        if isinstance(fitted, Dropped):
            return fitted
        record = fitted.record
        ids = join_pieces(fitted.tokens.pieces)
        others = self._other_turns(record, weights, ids)
        found = token_weights(
            ids, fitted.tokens, record, weights, others, policy, self._part_weights
        )
        if found.turn is None:
            # Where nothing is masked, the template wrote none of the trained turns.
            is_masked = policy.concerns_parts or any(m.ranges for m in record.messages)
            return NOTHING_TRAINED if is_masked else TEMPLATE_UNSTABLE
        notes = found.notes
        if part.shared or part.is_followed:
            notes[FURTHER_EXAMPLES] = int(part.shared > 0)
            encoded = part._replace(record=record)
            notes[REPEATED_TOKENS] = conversation_parts.repeated_tokens(
                encoded, fitted.tokens, self.tokenizer, self.stop_ids
            )
        if part.dropped:
            notes[DROPPED_THOUGHTS] = part.dropped
        return Encoded(
            tokens=ids,
            weights=found.weights_N,
            encoder_tokens=_NO_TOKENS,
            prompt_length=found.prompt_length,
            prefix_length=found.prefix_length,
            references=references_of(record, found.turn),
            truncated=fitted.truncated,
            control_strings=fitted.tokens.control_strings,
            unwritten=field_names(fitted.tokens.unwritten),
            notes=notes,
        )

    def _other_turns(
        self, record: Record, weights: Sequence[float], ids: npt.NDArray[np.int32]
    ) -> dict[int, slice]:
        """Return the tokens of trained turns that are not an assistant's."""
        turns = [i for i, w in enumerate(weights) if w and record.messages[i].role != "assistant"]
        if not turns:
            return {}
        chat = self._renderer.prepare(record)
        marked = self._renderer.with_contents(chat, turns)
        # A template that writes nothing before an answer gets one id in front.
        front = 0 if marked.contents[turns[0]][0] else int(ids[0] == self.empty_prompt[0])
        found = turn_tokens(ids[front:].tolist(), marked, self.tokenizer, record.where)
        return {t: slice(own.start + front, own.stop + front) for t, own in found.items()}

    def _encoder_decoder_example(
        self, record: Record, turn: int, weight: float, policy: Policy
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
        owners = np.full(ids.shape, turn)
        notes = self._part_weights.apply(weights, ids, owners, record, policy)
        if message.ranges:
            mask_ranges(weights, ids, owners, record, self.tokenizer)
        if not weights.any():
            return NOTHING_TRAINED
        return Encoded(
            tokens=ids,
            weights=weights,
            encoder_tokens=join_pieces(inputs.tokens.pieces),
            prompt_length=0,
            prefix_length=0,
            references=references_of(record, turn),
            truncated=inputs.truncated,
            control_strings=inputs.tokens.control_strings + answer.control_strings,
            unwritten=field_names(inputs.tokens.unwritten),
            notes=notes,
        )

    def fit(
        self, pieces: Sequence[list[int]], may_cut: Sequence[bool], field: str, where: str
    ) -> Cut | Dropped:
        """Fit pieces of ids into a limit as `LengthLimits.fit` does, or drop their record."""
        cut = self.limits.fit(pieces, may_cut, field, where)
        return cut or too_long(field, sum(map(len, pieces)))

    def _fit_inputs(self, record: Record) -> FittedTokens | Dropped:
        """Encode what an encoder reads, and make it fit."""
        tokens = self._encode_inputs(record)
        if not record.text_to_text:
            every_message = range(len(record.messages))
            return self._fitter.fit(
                record, tokens, every_message, "inputs_length", self._encode_inputs
            )
        n_text = len(tokens.pieces) - int(self._format.input_eos)  # EOS and BOS are never cut off.
        may_cut = [self._inputs_begin_with_bos <= i < n_text for i in range(len(tokens.pieces))]
        cut = self.fit(tokens.pieces, may_cut, "inputs_length", record.where)
        if isinstance(cut, Dropped):
            return cut
        return FittedTokens(tokens._replace(pieces=cut.pieces), cut.truncated, record)
