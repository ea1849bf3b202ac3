"""Formats: a record becomes token ids with a loss weight for each.

The rendered text is encoded as `transformers` encodes it: control tokens cut it into chunks, and
each chunk is encoded as a whole. Only where an answer begins or ends, trained or not, a chunk is
cut as well, because generation is prompted with exactly the text before it. So a prompt is a
prefix of what was trained, and a weight belongs to a token without any search in the text.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ift_jax.config import Config, FormatConfig
from ift_jax.errors import UserError
from ift_jax.text.chunks import ChunkEncoder, Tokens
from ift_jax.text.encoded import Encoded, Refused, flat, shares
from ift_jax.text.jinja import CLOSE, OPEN
from ift_jax.text.records import Message, Record, check_roles
from ift_jax.text.rendering import Marked, Renderer
from ift_jax.text.templates import resolve_template
from ift_jax.text.tokenizer_base import Tokenizer

__all__ = ["Encoded", "Formatter", "Refused"]

_VERSION = 3  # Of the ids that this file gives for the same options; part of the fingerprint.


class Formatter:
    """Turns records into ids by one format, tokenizer and set of lengths.

    Attributes:
        guard: the id, in a list, that stands in front of an empty prompt.
        stop_ids: the ids that end an answer in generation.
        template_source: the Jinja text of the template, with its options set.
        fingerprint: SHA-256 (hex) of everything that determines what `encode` gives.
    """

    def __init__(
        self, fmt: FormatConfig, tokenizer: Tokenizer, architecture: str, *,
        row_length: int, encoder_length: int, decoder_length: int, over_length: str,
    ):  # fmt: skip
        """Checks the format against the tokenizer.

        `architecture` is "decoder" or "encoder_decoder". The lengths, in tokens, bound a
        decoder's example, an encoder's input and an encoder-decoder's targets. An example
        that is longer and cannot be kept raises `Refused("too_long")` where `over_length` is
        "drop" or "truncate-prompt", and UserError where it is "error".

        Raises:
            UserError: no such template, or (decoder) its stop is not one token.
        """
        self.tokenizer = tokenizer
        self.guard = [tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id]
        self.architecture = architecture
        self.over_length = over_length
        self._lengths = {
            "row_length": row_length, "encoder_length": encoder_length,
            "decoder_length": decoder_length,
        }  # fmt: skip
        self._format = fmt
        template = resolve_template(fmt, tokenizer)
        self.template_source = template.source
        self._renderer = Renderer(template, tokenizer, fmt.control_strings == "text")
        self._tokens = ChunkEncoder(tokenizer).encode
        decoder = architecture == "decoder"
        stop = (self._stop_id,) if decoder else ()
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((*stop, tokenizer.eos_id)))
        identity = (
            _VERSION, template.source,
            (fmt.train_on, fmt.control_strings, architecture, over_length),
            row_length if decoder else (encoder_length, decoder_length, fmt.input_eos),
            tokenizer.fingerprint,
        )  # fmt: skip
        self.fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    @classmethod
    def from_config(cls, config: Config, tokenizer: Tokenizer) -> "Formatter":
        """The formatter of a run."""
        data = config.data
        return cls(
            config.format, tokenizer, config.model.architecture, row_length=data.row_length,
            encoder_length=data.encoder_length, decoder_length=data.decoder_length,
            over_length=data.over_length,
        )  # fmt: skip

    def encode(self, record: Record) -> list[Encoded]:
        """The training examples of a record, taken whole or not at all.

        A decoder gets one example; where the template writes an answer in another way when more
        follows it, one for each trained answer, with what comes before it. So does an
        encoder-decoder.

        Raises:
            Refused: "nothing_trained", "too_long" or "template_unstable".
            UserError: the template raises it, such as for a role that it does not know; over
                length under "error".
        """
        if record.choices:
            (example,) = self.encode(dataclasses.replace(record, choices=()))
            return [dataclasses.replace(example, choices=self._choices(record))]
        weights = _turn_weights(record.messages, self._format.train_on)
        trained = [i for i, weight in enumerate(weights) if weight > 0]
        if not trained:
            raise Refused("nothing_trained")
        # References are the last answer's.
        others = dataclasses.replace(record, references=()) if record.references else record
        records = [*(others for _ in trained[1:]), record]
        if self.architecture != "decoder":
            return [
                self._encoder_decoder_example(own, turn, weights[turn])
                for own, turn in zip(records, trained, strict=True)
            ]
        try:
            whole = self._rendered(record)
        except Refused:
            return [
                self._decoder_example(
                    dataclasses.replace(own, messages=own.messages[: turn + 1]),
                    [0.0] * turn + [weights[turn]], turn,
                    functools.partial(self._rendered, turn=turn),
                )
                for own, turn in zip(records, trained, strict=True)
            ]  # fmt: skip
        return [self._decoder_example(record, weights, trained[-1], self._rendered, whole)]

    def _choices(self, record: Record) -> tuple[tuple[str, list[int]], ...]:
        """Each choice with the ids that would be trained, were it the answer: its stop is one."""
        found = []
        for text in record.choices:
            answer = dataclasses.replace(record.messages[-1], content=text)
            messages = (*record.messages[:-1], answer)
            (example,) = self.encode(dataclasses.replace(record, messages=messages, choices=()))
            found.append((text, example.tokens[example.weights > 0].tolist()))
        return tuple(found)

    def fit(
        self, pieces: Sequence[list[int]], may_cut: Sequence[bool], field: str, where: str
    ) -> tuple[list[list[int]], int]:
        """Pieces of ids that fit into one of the three lengths, and how many ids were cut off.

        Under "truncate-prompt" the longest pieces that `may_cut` lose their ends, down to one
        common length; nothing else is touched.

        Raises:
            Refused: "too_long".
            UserError: the same, under "error"; names `where` and the field.
        """
        room, total = self._lengths[field], sum(map(len, pieces))
        if total <= room:
            return list(pieces), 0
        if self.over_length == "error":
            raise UserError(f"{where}: {total} tokens; expected at most data.{field} = {room}")
        lengths = [len(piece) * cut for piece, cut in zip(pieces, may_cut, strict=True)]
        excess = total - room
        if self.over_length == "drop" or sum(lengths) < excess:
            raise Refused("too_long")
        cuts = zip(pieces, may_cut, shares(lengths, excess), strict=True)
        return [piece[:keep] if cut else piece for piece, cut, keep in cuts], excess

    def prompt(self, record: Record | Sequence[Message]) -> npt.NDArray[np.int32]:
        """What generation is prompted with: a decoder's tokens or an encoder's.

        A record that ends in an answer is asked for it again: the int32 ids are those of `encode`,
        and so is the treatment of over-length. One, or messages, that ends before an answer is
        never cut: how much fits is for the caller to say.

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
        if not decoder:
            return flat(self._encoder_tokens(record).pieces)
        chat = self._renderer.chat(record)
        prompt = self._tokens(chat, Marked(self._renderer.prompt(chat)))
        return flat(self._guarded(prompt).pieces)

    def _rendered(self, record: Record, turn: int | None = None) -> Tokens:
        """A decoder's tokens, with all answers marked or the last one, `turn`, alone."""
        chat = self._renderer.chat(record)
        marked = self._renderer.whole(chat) if turn is None else self._renderer.last(chat, turn)
        return self._guarded(self._tokens(chat, marked))

    def _decoder_example(
        self, record: Record, weights: Sequence[float], turn: int,
        render: Callable[[Record], Tokens], tokens: Tokens | None = None,
    ) -> Encoded:  # fmt: skip
        """What `render` gives, or `tokens` if it did; `turn` is the last trained answer."""
        cuttable = [i for i, weight in enumerate(weights) if not weight]
        tokens = tokens or render(record)
        tokens, truncated = self._fitted(record, tokens, cuttable, "row_length", render)
        lengths = [len(piece) for piece in tokens.pieces]
        of_tokens = np.repeat(
            np.array([weights[t] if t >= 0 else 0.0 for t in tokens.turns], np.float32), lengths
        )
        if not of_tokens.any():
            raise Refused("template_unstable")
        return Encoded(
            tokens=flat(tokens.pieces), weights=of_tokens, encoder_tokens=np.zeros(0, np.int32),
            prompt_length=sum(lengths[: tokens.turns.index(turn)]),
            prefix_length=int(np.argmax(of_tokens > 0)), references=_references(record, turn),
            truncated=truncated, control_strings=tokens.controls,
        )  # fmt: skip

    def _encoder_decoder_example(self, record: Record, turn: int, weight: float) -> Encoded:
        before = dataclasses.replace(record, messages=record.messages[:turn])
        message = record.messages[turn]
        if message.tool_calls or message.reasoning_content:
            raise UserError(
                f"{record.where}: messages[{turn}]: an encoder-decoder answers with text alone;"
                " expected no tool_calls and no reasoning_content"
            )
        tokens = self._encoder_tokens(before)
        if record.text_to_text:
            end = len(tokens.pieces) - self._format.input_eos
            cut = [i < end for i in range(len(tokens.pieces))]
            pieces, truncated = self.fit(tokens.pieces, cut, "encoder_length", record.where)
            tokens = tokens._replace(pieces=pieces)
        else:
            tokens, truncated = self._fitted(
                before, tokens, range(turn), "encoder_length", self._encoder_tokens
            )
        answer = self._plain_tokens(dataclasses.replace(record, messages=(message,), tools=()))
        targets = [*answer.pieces, [self.tokenizer.eos_id]]
        self.fit(targets, [False] * len(targets), "decoder_length", record.where)
        ids = flat(targets)
        return Encoded(
            tokens=ids, weights=np.full(ids.shape, weight, np.float32),
            encoder_tokens=flat(tokens.pieces), prompt_length=0, prefix_length=0,
            references=_references(record, turn), truncated=truncated,
            control_strings=tokens.controls + answer.controls,
        )  # fmt: skip

    def _encoder_tokens(self, record: Record) -> Tokens:
        """What the encoder reads of the messages before an answer."""
        if record.text_to_text:
            tokens = self._plain_tokens(record)
        else:
            chat = self._renderer.chat(record)
            _ = self._stop_id  # Refuses a tokenizer in which turns could not be told apart.
            text = self._renderer.text(chat, len(chat.messages))
            tokens = self._tokens(chat, Marked(text))
        if self._format.input_eos:
            tokens.pieces.append([self.tokenizer.eos_id])
        return tokens

    def _plain_tokens(self, record: Record) -> Tokens:
        """The first message's text by itself."""
        chat = self._renderer.chat(record)
        return self._tokens(chat, Marked(chat.messages[0]["content"]))

    def _fitted(
        self, record: Record, tokens: Tokens, may_cut: Sequence[int], field: str,
        build: Callable[[Record], Tokens],
    ) -> tuple[Tokens, int]:  # fmt: skip
        """Tokens that fit, the longest of the contents that may be cut without their ends.

        Contents are cut and the conversation is written again, until it fits.
        """
        room, size = self._lengths[field], tokens.size
        if size <= room:
            return tokens, 0
        if self.over_length != "truncate-prompt":
            self.fit(tokens.pieces, [False] * len(tokens.pieces), field, record.where)
        messages = list(record.messages)
        ids = {i: self.tokenizer.encode(messages[i].content, "text") for i in may_cut}
        lengths = [len(content) for content in ids.values()]
        excess, most = size - room, sum(lengths)
        while excess <= most:
            for (i, content), keep in zip(ids.items(), shares(lengths, excess), strict=True):
                text = whole = record.messages[i].content
                if keep < len(content):
                    text = self.tokenizer.decode(content[:keep]).rstrip("\ufffd")
                    if not whole.startswith(text):  # Normalised, or a space is missing.
                        text = whole[: len(whole) * keep // len(content)]
                messages[i] = dataclasses.replace(record.messages[i], content=text)
            tokens = build(dataclasses.replace(record, messages=tuple(messages)))
            over = tokens.size - room
            if over <= 0:
                alone = tokens.pieces[0] == self.guard and tokens.turns[1] != -1
                if self.architecture == "decoder" and alone:
                    break  # Nothing of the prompt is left.
                return tokens, size - tokens.size
            excess = most + 1 if excess == most else min(excess + over, most)
        raise Refused("too_long")

    def _guarded(self, tokens: Tokens) -> Tokens:
        """The tokens of a decoder, with one in front of an empty prompt.

        The first token of a row is predicted from nothing. Where nothing comes before the
        first answer (plain format, empty inputs), BOS, or EOS where there is none, does.
        This looks at what comes before an answer only, so that prompts stay prefixes.
        """
        if tokens.pieces and tokens.turns[0] == -1:
            return tokens
        return tokens._replace(pieces=[self.guard, *tokens.pieces], turns=[-1, *tokens.turns])

    @functools.cached_property
    def _stop_id(self) -> int:
        """The id that ends an answer in the run's template."""
        record = Record((Message("user", "Hello"), Message("assistant", "Yes")), where="format")
        chat = self._renderer.chat(record)
        name = self._renderer.template.name
        try:
            marked = self._renderer.last(chat, 1)
        except Refused:
            raise UserError(
                f"format.template = {name!r}: expected that an answer follows the text that prompts"
                " it, and ends in a control token of the tokenizer (see tokenizer.added_tokens)"
            ) from None
        tokens = self._tokens(chat, marked)
        own = [p for p, turn in zip(tokens.pieces, tokens.turns, strict=True) if turn == 1]
        if own and len(own[-1]) == 1 and own[-1][0] in self.tokenizer.special_tokens.values():
            return own[-1][0]
        text = marked.text.partition(OPEN)[2].partition(CLOSE)[0].rpartition("Yes")[2].strip()
        raise UserError(
            f"format.template = {name!r}: its stop token {text!r} is not one token of the"
            " tokenizer; expected a tokenizer that has it (see tokenizer.added_tokens), or"
            " template 'plain'"
        )


def _turn_weights(messages: Sequence[Message], train_on: str) -> list[float]:
    """The loss weight of each message; 0 for all but the assistant's trained turns."""
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    weights = [0.0] * len(messages)
    for i in answers if train_on == "all" else answers[-1:]:
        given = messages[i].weight
        weights[i] = 1.0 if given is None else given
    return weights


def _references(record: Record, turn: int) -> tuple[str, ...]:
    """The answer itself and the references given for it."""
    return tuple(dict.fromkeys((record.messages[turn].content, *record.references)))
