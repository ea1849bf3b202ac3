"""Encoding prompts: the messages before an answer become the token ids that generation starts from.

`ift_jax.text.chat_templates.render` applies the chat template, `ift_jax.text.encode_chunks` encodes
what it wrote, and this module joins the two by the config's `format`. A text is split where an
answer begins or ends, trained or not, so a prompt has exactly the ids with which training
(`ift_jax.text.examples`) begins for the same messages.
"""

import copy
import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from ift_jax.config.schema import Config, FormatConfig
from ift_jax.errors import UserError
from ift_jax.text.chat_templates.registry import resolve_template, unread_options
from ift_jax.text.chat_templates.render import Chat, ChatRenderer, Span, as_typed
from ift_jax.text.conversation_parts import with_thinking, without_earlier_thoughts
from ift_jax.text.encode_chunks import ChunkEncoder, Tokens, join_pieces
from ift_jax.text.filters import KEEP_ALL, RowFilters
from ift_jax.text.over_length import LengthLimits
from ift_jax.text.part_weights import PartWeights
from ift_jax.text.policies import Policy
from ift_jax.text.records import Message, Record, order_error
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.turn_rules import AS_GIVEN, TurnRules
from ift_jax.text.unwritten import THOUGHT, Unwritten, unwritten

# Changes where the same options give other ids than before; part of the fingerprint.
_VERSION = 6
_INPUTS_VERSION = 1  # The same for what an encoder reads.
_BEGINNING = Span("")


def _begins_with_bos(fmt: FormatConfig, tokenizer: Tokenizer) -> bool:
    """Whether the text that an encoder reads begins with BOS, as Gemma's does and T5's does not."""
    if tokenizer.bos_id is None:
        return False
    return fmt.add_bos == "always" or (fmt.add_bos == "auto" and tokenizer.adds_bos)


class UnwrittenError(UserError):
    """A chat template leaves out a text of a record."""


class PromptFormatter:
    """Turns records into the token ids of prompts, by one format and tokenizer.

    Attributes:
        tokenizer: The tokenizer.
        architecture: "decoder" or "encoder_decoder".
        limits: The lengths of the run.
        empty_prompt: The one id, in a list, that prompts a decoder where nothing else does.
        add_bos: `format.add_bos` of the config.
        filters: What drops training examples.
        stop_ids: The ids that end an answer in generation.
        template_source: The Jinja text of the chat template, with its options set.
        fingerprint: SHA-256 (hex) of everything that determines the ids of a record.
    """

    def __init__(
        self,
        fmt: FormatConfig,
        tokenizer: Tokenizer,
        architecture: str,
        *,
        max_length: int,
        inputs_length: int,
        targets_length: int,
        over_length: str,
        turn_rules: TurnRules = AS_GIVEN,
        filters: RowFilters = KEEP_ALL,
    ):
        """Check the format against the tokenizer.

        Args:
            fmt: The chat template and what is trained.
            tokenizer: The tokenizer.
            architecture: "decoder" or "encoder_decoder".
            max_length: The most tokens of a decoder's example.
            inputs_length: The most tokens of an encoder's input.
            targets_length: The most tokens of an encoder-decoder's targets.
            over_length: What happens to a longer example that cannot be kept. It is dropped under
                "drop" or "truncate-prompt", and is a UserError under "error".
            turn_rules: What is done with turns in an unusual order.
            filters: What drops training examples.

        Raises:
            UserError: There is no such template, or its stop is not one token (for a decoder).
        """
        self.tokenizer = tokenizer
        self.architecture = architecture
        self.limits = LengthLimits(max_length, inputs_length, targets_length, over_length)
        first_id = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        self.empty_prompt = [first_id]
        self._format = fmt
        self._turn_rules = turn_rules
        self.filters = filters
        template = resolve_template(fmt, tokenizer)
        self.template_source = template.source
        self.add_bos = fmt.add_bos
        break_controls = fmt.control_strings == "text"
        self._renderer = ChatRenderer(template, tokenizer, break_controls=break_controls)
        self._encode = ChunkEncoder(tokenizer).encode
        self._policy = Policy.of(fmt, architecture)
        self._part_weights = PartWeights(tokenizer, template.name)
        is_decoder = architecture == "decoder"
        # A chat template writes its own BOS, or has it put in front.
        self._inputs_begin_with_bos = not is_decoder and _begins_with_bos(fmt, tokenizer)
        stops = (*self._stop_tokens, tokenizer.eos_id) if is_decoder else (tokenizer.eos_id,)
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys(stops))
        identity = (
            _VERSION,
            template.source,
            (fmt.control_strings, fmt.unwritten, architecture, over_length),
            dataclasses.astuple(self._policy),
            dataclasses.astuple(turn_rules),
            *((dataclasses.astuple(filters),) if filters.names else ()),
            *(("bos",) if self._inputs_begin_with_bos else ()),
            max_length if is_decoder else (inputs_length, targets_length, fmt.input_eos),
            *(() if is_decoder else (_INPUTS_VERSION,)),
            tokenizer.fingerprint,
        )
        self.fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    @classmethod
    def from_config(cls, config: Config, tokenizer: Tokenizer) -> Self:
        """Make the formatter of a run."""
        return cls(
            config.format,
            tokenizer,
            config.model.architecture,
            max_length=config.data.max_length,
            inputs_length=config.data.inputs_length,
            targets_length=config.data.targets_length,
            over_length=config.data.over_length,
            turn_rules=TurnRules.of(config.data),
            filters=RowFilters.of(config.data),
        )

    def unread_options(self) -> str:
        """Say which of `format.template_options` the template does not read; "" if it reads all."""
        return unread_options(self._format, self.tokenizer)

    def with_limits(self, limits: LengthLimits) -> Self:
        """Return the same formatter with other length limits."""
        other = copy.copy(self)
        other.limits = limits
        return other

    def prompt(self, record: Record | Sequence[Message]) -> npt.NDArray[np.int32]:
        """Encode the prompt of a generated answer: int32[N], for a decoder or an encoder.

        A prompt is never cut; the caller decides how much of it fits.

        Args:
            record: A record or its messages, which end before an answer.

        Raises:
            UserError: The messages are in a wrong order, or the template raises it.
        """
        record = self._to_answer(record)
        if self.architecture != "decoder":
            tokens = self._encode_inputs(record)
            self._check_written(record, tokens.unwritten, trained=())
            return join_pieces(tokens.pieces)
        chat = self._renderer.prepare(record)
        spans = self._renderer.prompt(chat)  # Applies the chat template.
        tokens = self._with_beginning(self._encode_written(chat, spans))
        self._check_written(record, tokens.unwritten, trained=())
        return join_pieces(tokens.pieces)

    def text(self, record: Record | Sequence[Message]) -> str:
        """Write the prompt of a generated answer as a text, for programs that want one.

        `Tokenizer.encode_with_controls` gives the ids of `prompt` again, unless a record's own
        text holds a control string, which such a program cannot tell from one of the template. BOS
        and EOS around an encoder's plain input are not part of the text.

        Args:
            record: A record or its messages, which end before an answer.

        Raises:
            UserError: The messages are in a wrong order, or the template raises it.
        """
        record = self._to_answer(record)
        if self.architecture != "decoder" and record.text_to_text:
            return record.messages[0].content
        chat = self._renderer.prepare(record)
        is_decoder = self.architecture == "decoder"
        spans = self._renderer.prompt(chat) if is_decoder else self._renderer.inputs(chat)
        written = "".join([span.text for span in spans])
        left_out = unwritten(chat, written, self.template_source)
        self._check_written(record, left_out, trained=())
        return as_typed(written, chat.restore)

    def _to_answer(self, record: Record | Sequence[Message]) -> Record:
        """Return a record that ends before an answer as the template is to see it."""
        if not isinstance(record, Record):
            record = Record(tuple(record), where="prompt")
        record = self._in_order(record)
        policy = self.policy_of(record)
        record = self._with_thinking(record, policy)
        return without_earlier_thoughts(record) if policy.earlier_thinking == "drop" else record

    def policy_of(self, record: Record) -> Policy:
        """Return the policy of a record: the run's, but for what the row itself says."""
        return self._policy.for_row(record.policy, record.where, self.architecture)

    def _with_thinking(self, record: Record, policy: Policy) -> Record:
        """Return a record as its template is to see it under a policy for thoughts."""
        if policy.earlier_thinking != "keep" and policy.empty_thinking == "template":
            return record
        template = self._renderer.template
        return with_thinking(record, policy, template.source, template.name)

    def _check_kept(self, record: Record, left_out: Iterable[Unwritten], policy: Policy) -> None:
        """Check that thoughts which are to be kept were written.

        Raises:
            UserError: The template leaves out one of an earlier round.
        """
        if policy.earlier_thinking == "keep":
            lost = [item.path for item in left_out if item.field == THOUGHT]
            if lost:
                raise UserError(
                    f"{record.where}: format.earlier_thinking='keep' cannot be kept under template"
                    f" {self._renderer.template.name!r}: it leaves out {', '.join(sorted(lost))};"
                    " expected a template that writes the thoughts of earlier rounds, or 'template'"
                )

    def _encode_inputs(self, record: Record) -> Tokens:
        """Encode what an encoder reads: the messages before an answer."""
        if record.text_to_text:
            tokens = self._encode_first_message(record)
        else:
            chat = self._renderer.prepare(record)
            _ = self._stop_tokens  # Without a stop token, turns could not be told apart.
            spans = self._renderer.inputs(chat)  # Applies the chat template.
            tokens = self._encode_written(chat, spans)
        if record.text_to_text and self._inputs_begin_with_bos:
            tokens = tokens._replace(
                pieces=[self.empty_prompt, *tokens.pieces], spans=[_BEGINNING, *tokens.spans]
            )
        if self._format.input_eos:
            eos = [self.tokenizer.eos_id]
            tokens = tokens._replace(
                pieces=[*tokens.pieces, eos], spans=[*tokens.spans, _BEGINNING]
            )
        return tokens

    def _in_order(self, record: Record) -> Record:
        """Return a record to answer with its turns in order; raise a UserError if they are not."""
        ordered = self._turn_rules.apply(record)
        if isinstance(ordered, str) or not ordered.messages:
            raise order_error(record.messages, record.where)
        return ordered

    def _encode_written(self, chat: Chat, spans: Sequence[Span]) -> Tokens:
        """Encode what a template wrote, and note what it left out."""
        written = "".join([span.text for span in spans])
        left_out = unwritten(chat, written, self.template_source)
        return self._encode(chat, spans)._replace(unwritten=left_out)

    def _check_written(
        self, record: Record, left_out: Iterable[Unwritten], trained: Collection[int]
    ) -> bool:
        """Return whether a record may be used although the template left out some of its texts.

        Identifiers do not count, nor the thoughts of turns that are not trained: many templates
        leave out those of earlier turns, in training as in use.

        Args:
            record: The record.
            left_out: What the template did not write.
            trained: The messages that are trained.

        Raises:
            UserError: Something counts, and `format.unwritten` is "error".
        """
        counts = [item for item in left_out if item.matters(trained)]
        if not counts or self._format.unwritten == "leave-out":
            return True
        if self._format.unwritten == "drop":
            return False
        fields = ", ".join(sorted({item.path for item in counts}))
        raise UnwrittenError(
            f"{record.where}: template {self._renderer.template.name!r} does not write {fields};"
            " remove it, use a template that writes it, or set format.unwritten to 'leave-out' (the"
            " text) or 'drop' (the record)"
        )

    def _encode_first_message(self, record: Record) -> Tokens:
        """Encode the first message's text alone, without a template."""
        chat = self._renderer.prepare(record)
        return self._encode(chat, [Span(chat.messages[0]["content"])])

    def _with_beginning(self, tokens: Tokens) -> Tokens:
        """Put one id in front of a decoder's tokens if nothing comes before the first answer.

        The first token of a row cannot be trained, as nothing predicts it. So BOS, or EOS where
        there is none, comes before an answer that would be first (plain format with empty inputs).
        This depends only on what comes before the answer, so a prompt remains a prefix of its
        example.
        """
        if tokens.pieces and not tokens.spans[0].is_answer:
            return tokens
        return tokens._replace(
            pieces=[self.empty_prompt, *tokens.pieces], spans=[_BEGINNING, *tokens.spans]
        )

    @functools.cached_property
    def _stop_tokens(self) -> list[int]:
        """The ids that end an answer in the run's template, that of a plain answer first.

        Raises:
            UserError: There are none.
        """
        answers = self._renderer.answers
        question, answer = Message("user", "Hello"), Message("assistant", "Yes")
        plain = self._renderer.prepare(Record((question, answer), where="format"))
        stops = answers.stops(plain)
        if not stops:
            name = self._renderer.template.name
            raise UserError(
                f"format.template = {name!r}: {answers.fault(plain, 1, answer.content)}"
            )
        return [self.tokenizer.special_tokens[stop] for stop in stops]
