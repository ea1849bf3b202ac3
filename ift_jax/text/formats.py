"""Formats: a record becomes token ids with a loss weight for each.

Everything is encoded segment by segment (what the template writes, each content, each stop
token by itself), by the same function for training and for prompting. So a prompt is a prefix
of what was trained, and a weight belongs to a token without any search in the text.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ift_jax.config import Config, FormatConfig
from ift_jax.errors import UserError
from ift_jax.text import length
from ift_jax.text.encoded import Encoded, flat
from ift_jax.text.length import Refused
from ift_jax.text.records import Message, Record, check_roles
from ift_jax.text.templates import BOS, EOS, Segment, get_template, render, turn_weights
from ift_jax.text.tokenised import encode_tokenised
from ift_jax.text.tokenizer_base import Tokenizer, control_pattern

__all__ = ["Encoded", "Formatter", "Refused", "encode_tokenised"]

_VERSION = 1  # Of the ids that this file gives for the same options; part of the fingerprint.
_PLACEHOLDERS = re.compile("(" + re.escape(BOS) + "|" + re.escape(EOS) + ")")


class Formatter:
    """Turns records into ids by one format, tokenizer and set of lengths.

    Attributes:
        tokenizer: the tokenizer.
        stop_ids: the ids that end an answer in generation.
        fingerprint: SHA-256 (hex) of everything that determines what `encode` gives.
    """

    def __init__(
        self,
        fmt: FormatConfig,
        tokenizer: Tokenizer,
        architecture: str,
        *,
        row_length: int,
        encoder_length: int,
        decoder_length: int,
        over_length: str,
    ):
        """Checks the format against the tokenizer.

        Args:
            fmt: the template and its options.
            tokenizer: the tokenizer of the run.
            architecture: "decoder" or "encoder_decoder".
            row_length: the most tokens of a decoder's example.
            encoder_length: the most tokens of an encoder's input.
            decoder_length: the most tokens of an encoder-decoder's targets.
            over_length: what happens to a longer example: "drop" and "truncate-prompt" raise
                `Refused("too_long")` if it cannot be kept, "error" raises UserError.

        Raises:
            UserError: no such template, or (decoder) its stop is not one token.
        """
        self.tokenizer = tokenizer
        self.architecture = architecture
        self.over_length = over_length
        self._lengths = {
            "row_length": row_length,
            "encoder_length": encoder_length,
            "decoder_length": decoder_length,
        }
        self._format = fmt
        self._template = get_template(fmt.template)
        self._control_cache: dict[str, list[int]] = {}
        self._text_cache: dict[str, tuple[list[int], int]] = {}
        controls = {*self._template.controls, *tokenizer.special_tokens}
        self._pattern = control_pattern(controls)
        # Control strings that ordinary text would spell with the control's id all the same,
        # such as a vocabulary entry that is not marked as special. They go in two parts.
        self._leaks = {
            s
            for s in controls
            if len(ids := tokenizer.encode_with_controls(s)) == 1 and ids[0] in tokenizer.encode(s)
        }
        decoder = architecture == "decoder"
        if decoder:
            self.stop_ids: tuple[int, ...] = tuple(
                dict.fromkeys((self._stop_id(), tokenizer.eos_id))
            )
        else:
            self.stop_ids = (tokenizer.eos_id,)
        self.fingerprint = _sha256(
            _VERSION,
            dataclasses.asdict(self._template),
            (fmt.train_on, fmt.control_strings, architecture, over_length),
            row_length if decoder else (encoder_length, decoder_length, fmt.input_eos),
            tokenizer.fingerprint,
        )

    @classmethod
    def from_config(cls, config: Config, tokenizer: Tokenizer) -> "Formatter":
        """The formatter of a run."""
        return cls(
            config.format,
            tokenizer,
            config.model.architecture,
            row_length=config.data.row_length,
            encoder_length=config.data.encoder_length,
            decoder_length=config.data.decoder_length,
            over_length=config.data.over_length,
        )

    def encode(self, record: Record) -> list[Encoded]:
        """The training examples of a record.

        A decoder gets one example. An encoder-decoder gets one for each trained answer: what
        comes before it, then the answer. A record is taken whole or not at all.

        Raises:
            Refused: "nothing_trained" or "too_long".
            UserError: a role that the template does not know; over length under "error".
        """
        weights = turn_weights(record.messages, self._format.train_on)
        trained = [i for i, weight in enumerate(weights) if weight > 0]
        if not trained:
            raise Refused("nothing_trained")
        if self.architecture == "decoder":
            return [self._decoder_example(record, trained[-1])]
        return [
            self._encoder_decoder_example(record, turn, weights[turn], turn == trained[-1])
            for turn in trained
        ]

    def fit(
        self, pieces: Sequence[list[int]], may_cut: Sequence[bool], field: str, where: str
    ) -> tuple[list[list[int]], int]:
        """`length.fit` by the run's policy; `field` is one of the three lengths."""
        return length.fit(
            pieces,
            may_cut,
            self._lengths[field],
            policy=self.over_length,
            where=where,
            field=f"data.{field}",
        )

    def prompt(self, record: Record | Sequence[Message]) -> npt.NDArray[np.int32]:
        """What generation is prompted with: a decoder's tokens or an encoder's.

        Args:
            record: a record whose last trained answer is asked for again (the ids are those of
                `encode`, and so is the treatment of over-length); or a record or messages that
                end before an answer (never cut: how much fits is for the caller to say).

        Returns:
            int32 ids.

        Raises:
            Refused, UserError: as `encode`; UserError also for messages in a wrong order.
        """
        if not isinstance(record, Record):
            record = Record(tuple(record), where="prompt")
            check_roles(record.messages, record.where)
        decoder = self.architecture == "decoder"
        if record.messages[-1].role == "assistant":
            example = self.encode(record)[-1]
            return example.tokens[: example.prompt_length] if decoder else example.encoder_tokens
        if decoder:
            segments = render(record, self._template, add_generation_prompt=True)
            pieces = self._guarded(segments)[1]
        else:
            segments = self._encoder_segments(record)
            pieces = self._pieces(segments)[0]
        return flat(pieces)

    def _decoder_example(self, record: Record, turn: int) -> Encoded:
        segments = render(record, self._template, train_on=self._format.train_on)
        segments, pieces, controls = self._guarded(segments)
        pieces, truncated = self.fit(pieces, _may_cut(segments), "row_length", record.where)
        lengths = [len(piece) for piece in pieces]
        first = next(i for i, segment in enumerate(segments) if segment.answer)
        if not any(lengths[:first]):  # Nothing of the prompt is left to predict a token from.
            raise Refused("too_long")
        start = next(
            i for i, segment in enumerate(segments) if segment.answer and segment.turn == turn
        )
        weights = np.repeat(np.array([s.weight for s in segments], np.float32), lengths)
        return Encoded(
            tokens=flat(pieces),
            weights=weights,
            encoder_tokens=np.zeros(0, np.int32),
            prompt_length=sum(lengths[:start]),
            prefix_length=int(np.argmax(weights > 0)),
            references=_references(record, turn, last=True),
            truncated=truncated,
            control_strings=controls,
        )

    def _encoder_decoder_example(
        self, record: Record, turn: int, weight: float, last: bool
    ) -> Encoded:
        before = dataclasses.replace(record, messages=record.messages[:turn])
        segments = self._encoder_segments(before)
        pieces, controls = self._pieces(segments)
        pieces, truncated = self.fit(pieces, _may_cut(segments), "encoder_length", record.where)
        answer, n_controls = self._text_ids(record.messages[turn].content)
        answer = [*answer, self.tokenizer.eos_id]
        targets, _ = self.fit([answer], [False], "decoder_length", record.where)
        tokens = flat(targets)
        return Encoded(
            tokens=tokens,
            weights=np.full(tokens.shape, weight, np.float32),
            encoder_tokens=flat(pieces),
            prompt_length=0,
            prefix_length=0,
            references=_references(record, turn, last),
            truncated=truncated,
            control_strings=controls + n_controls,
        )

    def _encoder_segments(self, record: Record) -> list[Segment]:
        """What the encoder reads of the messages before an answer."""
        if record.text_to_text:
            segments = [Segment(record.messages[0].content, "text", 0.0, "user", 0)]
        else:
            self._stop_id()  # Refuses a tokenizer in which turns could not be told apart.
            # In the encoder no answer is trained: all of it is context, and may be cut.
            segments = [s._replace(weight=0.0) for s in render(record, self._template)]
        if self._format.input_eos:
            segments.append(Segment(EOS, "control", 0.0, "", len(record.messages)))
        return segments

    def _guarded(self, segments: list[Segment]) -> tuple[list[Segment], list[list[int]], int]:
        """The pieces of a decoder's segments, with a token in front of an empty prompt.

        The first token of a row is predicted from nothing. Where nothing comes before the
        first answer (plain format, empty inputs), BOS, or EOS where there is none, does.
        This looks at what comes before an answer only, so that prompts stay prefixes.
        """
        pieces, controls = self._pieces(segments)
        first = next((i for i, s in enumerate(segments) if s.answer), len(segments))
        if any(pieces[:first]):
            return segments, pieces, controls
        bos = self.tokenizer.bos_id
        guard = Segment(EOS if bos is None else BOS, "control", 0.0, "", 0)
        return [guard, *segments], [self._control_ids(guard.text), *pieces], controls

    def _pieces(self, segments: Sequence[Segment]) -> tuple[list[list[int]], int]:
        """The ids of each segment, and how many control strings the messages hold."""
        pieces, controls = [], 0
        for segment in segments:
            if segment.kind == "control":
                pieces.append(self._control_ids(segment.text))
            else:
                ids, n = self._text_ids(segment.text)
                pieces.append(ids)
                controls += n
        return pieces, controls

    def _control_ids(self, text: str) -> list[int]:
        """The ids of what a template writes (few strings, met again in every example)."""
        ids = self._control_cache.get(text)
        if ids is None:
            ids = []
            for part in _PLACEHOLDERS.split(text):
                if part == EOS:
                    ids.append(self.tokenizer.eos_id)
                elif part == BOS:
                    ids += [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
                elif part:
                    ids += self.tokenizer.encode_with_controls(part)
            self._control_cache[text] = ids
        return ids

    def _text_ids(self, text: str) -> tuple[list[int], int]:
        """The ids of a message's content, and how many control strings it holds."""
        found = self._text_cache.get(text)
        if found is None:
            if len(self._text_cache) > 64:  # For the answers of one long conversation.
                self._text_cache.clear()
            found = self._text_cache[text] = self._spell(text)
        return found

    def _spell(self, text: str) -> tuple[list[int], int]:
        found = list(self._pattern.finditer(text)) if self._pattern else []
        if not found:
            return self.tokenizer.encode(text), 0
        if self._format.control_strings == "control":
            return self.tokenizer.encode_with_controls(text), len(found)
        ids: list[int] = []
        at = 0
        for match in found:
            if match.group() in self._leaks:
                ids += self.tokenizer.encode(text[at : match.start() + 1])
                at = match.start() + 1
        return ids + self.tokenizer.encode(text[at:]), len(found)

    def _stop_id(self) -> int:
        """The id that ends an answer in the run's template."""
        stop = self._template.roles["assistant"].stop
        ids = self._control_ids(stop)
        if stop != EOS and (len(ids) != 1 or self.tokenizer.decode(ids, keep_special=True) != stop):
            raise UserError(
                f"format.template = {self._template.name!r}: its stop token {stop!r} is not one"
                " token of the tokenizer; expected a tokenizer that has it, or template 'plain'"
            )
        return ids[0]


def _may_cut(segments: Sequence[Segment]) -> list[bool]:
    return [segment.kind == "text" and not segment.weight for segment in segments]


def _references(record: Record, turn: int, last: bool) -> tuple[str, ...]:
    """The answer itself and, for a record's last trained turn, the references given for it."""
    given = record.references if last else ()
    return tuple(dict.fromkeys((record.messages[turn].content, *given)))


def _sha256(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
