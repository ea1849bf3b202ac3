"""Examples: what is trained of a record, as token ids with a loss weight for each.

Where a prompt ends and an answer begins is known before anything is encoded (`ift_jax.text`), so a
weight belongs to a token without any search in the text.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.marking import MarkingRenderer
from ift_jax.text.chat_templates.render import Chat, Marked, Refused
from ift_jax.text.encode_chunks import Tokens, flat
from ift_jax.text.prompts import Formatter
from ift_jax.text.records import Message, Record

_NOTHING = np.zeros(0, np.int32)
__all__ = ["Encoded", "ExampleFormatter", "Refused"]


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """One example, ready to be trained on."""

    tokens: npt.NDArray[np.int32]  # N: all of a decoder's; an encoder-decoder's targets with EOS.
    weights: npt.NDArray[np.float32]  # N: the loss weight of each token as a target.
    encoder_tokens: npt.NDArray[np.int32]  # M; empty for a decoder.
    prompt_length: int  # A decoder's `tokens` that prompt the last trained answer; or 0.
    prefix_length: int  # Leading tokens before the first trained one.
    references: tuple[str, ...]  # What an answer is compared with, the trained one among them.
    truncated: int  # Prompt tokens that were cut off.
    control_strings: int  # Found inside the messages' text.
    choices: tuple[tuple[str, list[int]], ...] = ()  # To be ranked: texts, and ids with the stop.


class ExampleFormatter(Formatter):
    """A format that makes training examples of records."""

    _renderer_type = MarkingRenderer
    _renderer: MarkingRenderer

    def encode_each(self, records: Sequence[Record]) -> Iterator[list[Encoded] | Refused]:
        """What `encode` gives of each record, or that it was refused.

        Step by step for all of them, so that the code and data of a step stay in the processor's
        caches: that takes a sixth less time.
        """
        for record, whole in zip(records, self._wholes(records), strict=True):
            try:
                yield self.encode(record, whole)
            except Refused as refused:
                yield refused

    def _wholes(self, records: Sequence[Record]) -> list[Tokens | Refused | None]:
        """`_rendered` of each record; None where `encode` does not ask, or has to say why not."""
        chats: list[tuple[Chat, Marked] | Refused | None] = []
        for record in records:
            chats.append(None)
            if self.architecture != "decoder" or record.choices:
                continue
            with contextlib.suppress(UserError):
                chat = self._renderer.chat(record)
                try:
                    chats[-1] = chat, self._renderer.whole(chat)
                except Refused as refused:
                    chats[-1] = refused
        wholes: list[Tokens | Refused | None] = []
        for made in chats:
            wholes.append(made if isinstance(made, Refused) else None)
            if isinstance(made, tuple):
                with contextlib.suppress(UserError):
                    wholes[-1] = self._guarded(self._tokens(*made))
        return wholes

    def encode(self, record: Record, whole: Tokens | Refused | None = None) -> list[Encoded]:
        """The training examples of a record, taken whole or not at all.

        A decoder gets one example; where the template writes an answer in another way when more
        follows it, one for each trained answer, with what comes before it. So does an
        encoder-decoder. `whole`, what `_rendered` gives of a decoder's record or raises, may be
        known.

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
            if isinstance(whole, Refused):
                raise whole
            whole = whole or self._rendered(record)
        except Refused:
            return [
                self._decoder_example(
                    dataclasses.replace(own, messages=own.messages[: turn + 1]),
                    [0.0] * turn + [weights[turn]],
                    turn,
                    functools.partial(self._rendered, turn=turn),
                )
                for own, turn in zip(records, trained, strict=True)
            ]
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
        """As `Formatter.prompt`; a record that ends in an answer is asked for it again.

        Its ids are those of `encode` then, and so are the treatment of over-length and the errors.
        """
        if not isinstance(record, Record) or record.messages[-1].role != "assistant":
            return super().prompt(record)
        example = self.encode(record)[-1]
        decoder = self.architecture == "decoder"
        return example.tokens[: example.prompt_length] if decoder else example.encoder_tokens

    def _rendered(self, record: Record, turn: int | None = None) -> Tokens:
        """A decoder's tokens, with all answers marked or the last one, `turn`, alone."""
        chat = self._renderer.chat(record)
        marked = self._renderer.whole(chat) if turn is None else self._renderer.last(chat, turn)
        return self._guarded(self._tokens(chat, marked))

    def _decoder_example(
        self,
        record: Record,
        weights: Sequence[float],
        turn: int,
        render: Callable[[Record], Tokens],
        tokens: Tokens | None = None,
    ) -> Encoded:
        """What `render` gives, or `tokens` if it did; `turn` is the last trained answer."""
        cuttable = [i for i, weight in enumerate(weights) if not weight]
        tokens = tokens or render(record)
        tokens, truncated = self._fitted(record, tokens, cuttable, "max_length", render)
        lengths = [*map(len, tokens.pieces)]
        of_pieces = np.array([weights[t] if t >= 0 else 0.0 for t in tokens.turns], np.float32)
        trained = (i for i, weight in enumerate(of_pieces.tolist()) if weight and lengths[i])
        if (first := next(trained, None)) is None:
            raise Refused("template_unstable")
        return Encoded(
            tokens=flat(tokens.pieces),
            weights=np.repeat(of_pieces, lengths),
            encoder_tokens=_NOTHING,
            prompt_length=sum(lengths[: tokens.turns.index(turn)]),
            prefix_length=sum(lengths[:first]),
            references=_references(record, turn),
            truncated=truncated,
            control_strings=tokens.controls,
        )

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
            pieces, truncated = self.fit(tokens.pieces, cut, "inputs_length", record.where)
            tokens = tokens._replace(pieces=pieces)
        else:
            tokens, truncated = self._fitted(
                before, tokens, range(turn), "inputs_length", self._encoder_tokens
            )
        answer = self._plain_tokens(dataclasses.replace(record, messages=(message,), tools=()))
        targets = [*answer.pieces, [self.tokenizer.eos_id]]
        self.fit(targets, [False] * len(targets), "targets_length", record.where)
        ids = flat(targets)
        return Encoded(
            tokens=ids,
            weights=np.full(ids.shape, weight, np.float32),
            encoder_tokens=flat(tokens.pieces),
            prompt_length=0,
            prefix_length=0,
            references=_references(record, turn),
            truncated=truncated,
            control_strings=tokens.controls + answer.controls,
        )

    def _fitted(
        self,
        record: Record,
        tokens: Tokens,
        may_cut: Sequence[int],
        field: str,
        build: Callable[[Record], Tokens],
    ) -> tuple[Tokens, int]:
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


def shares(lengths: Sequence[int], excess: int) -> list[int]:
    """What is left of each length when the longest give up `excess` in all."""
    left = sum(lengths) - excess
    shares = [0] * len(lengths)
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    for done, i in enumerate(order):  # From the shortest: none is left more than an equal share.
        shares[i] = min(lengths[i], left // (len(order) - done))
        left -= shares[i]
    return shares
