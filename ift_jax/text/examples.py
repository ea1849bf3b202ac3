"""Examples: what is trained of a record, as token ids with a loss weight for each.

Where a prompt ends and an answer begins is known before anything is encoded (`ift_jax.text`), so a
weight belongs to a token without any search in the text.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.marking import MarkingRenderer
from ift_jax.text.chat_templates.render import Chat, Marked
from ift_jax.text.encode_chunks import Tokens, flat
from ift_jax.text.prompts import Formatter
from ift_jax.text.records import Message, Record

_NOTHING = np.zeros(0, np.int32)


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A record that gives no example."""

    reason: str  # "too_long", "nothing_trained" or "template_unstable".


_UNSTABLE = Dropped("template_unstable")  # An answer does not follow the text that prompts it.


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

    def encode_each(self, records: Sequence[Record]) -> Iterator[list[Encoded] | Dropped]:
        """Yields what `encode` returns for each record.

        Each step runs for all records before the next step begins, so that its code and data stay
        in the processor's caches: that takes a sixth less time.
        """
        for record, whole in zip(records, self._wholes(records), strict=True):
            yield self.encode(record, whole)

    def _wholes(self, records: Sequence[Record]) -> list[Tokens | Dropped | None]:
        """`_rendered` of each record; None where `encode` does not ask, or has to say why not."""
        chats: list[tuple[Chat, Marked | None] | None] = []
        for record in records:
            chats.append(None)
            if self.architecture != "decoder" or record.choices:
                continue
            with contextlib.suppress(UserError):
                chat = self._renderer.chat(record)
                chats[-1] = chat, self._renderer.whole(chat)
        wholes: list[Tokens | Dropped | None] = []
        for made in chats:
            wholes.append(None)
            if made is not None:
                with contextlib.suppress(UserError):
                    wholes[-1] = self._encoded(*made)
        return wholes

    def encode(
        self, record: Record, whole: Tokens | Dropped | None = None
    ) -> list[Encoded] | Dropped:
        """The training examples of a record, all of them or none.

        A decoder gets one example; where the template writes an answer in another way when more
        follows it, one for each trained answer, with what comes before it. So does an
        encoder-decoder. `whole`, what `_rendered` gives of a decoder's record, may be known.

        Raises:
            UserError: the template raises it, such as for a role that it does not know; over
                length under "error".
        """
        if record.choices:
            return self._ranked_example(record)
        weights = _turn_weights(record.messages, self._format.train_on)
        trained = [i for i, weight in enumerate(weights) if weight > 0]
        if not trained:
            return Dropped("nothing_trained")
        # References are the last answer's.
        others = dataclasses.replace(record, references=()) if record.references else record
        records = [*(others for _ in trained[1:]), record]
        if self.architecture != "decoder":
            return _all_or_dropped(
                self._encoder_decoder_example(own, turn, weights[turn])
                for own, turn in zip(records, trained, strict=True)
            )
        whole = whole or self._rendered(record)
        if isinstance(whole, Tokens):
            example = self._decoder_example(record, weights, trained[-1], self._rendered, whole)
            return _all_or_dropped([example])
        return _all_or_dropped(
            self._decoder_example(
                dataclasses.replace(own, messages=own.messages[: turn + 1]),
                [0.0] * turn + [weights[turn]],
                turn,
                functools.partial(self._rendered, turn=turn),
            )
            for own, turn in zip(records, trained, strict=True)
        )

    def _ranked_example(self, record: Record) -> list[Encoded] | Dropped:
        """The example of a record with choices, each with the ids that it would train.

        These are the ids of the choice as the answer, its stop among them.
        """
        made = self.encode(dataclasses.replace(record, choices=()))
        if isinstance(made, Dropped):
            return made
        (example,) = made
        choices = []
        for text in record.choices:
            answer = dataclasses.replace(record.messages[-1], content=text)
            messages = (*record.messages[:-1], answer)
            chosen = self.encode(dataclasses.replace(record, messages=messages, choices=()))
            if isinstance(chosen, Dropped):
                return chosen
            choices.append((text, chosen[0].tokens[chosen[0].weights > 0].tolist()))
        return [dataclasses.replace(example, choices=tuple(choices))]

    def fit(
        self, pieces: Sequence[list[int]], may_cut: Sequence[bool], field: str, where: str
    ) -> tuple[list[list[int]], int] | Dropped:
        """Pieces of ids that fit into one of the three lengths, and how many ids were cut off.

        Under "truncate-prompt" the longest pieces that `may_cut` lose their ends, down to one
        common length; nothing else is touched. Pieces that cannot fit are dropped as "too_long".

        Raises:
            UserError: they do not fit, under "error"; names `where` and the field.
        """
        room, total = self._lengths[field], sum(map(len, pieces))
        if total <= room:
            return list(pieces), 0
        if self.over_length == "error":
            raise UserError(f"{where}: {total} tokens; expected at most data.{field} = {room}")
        lengths = [len(piece) * cut for piece, cut in zip(pieces, may_cut, strict=True)]
        excess = total - room
        if self.over_length == "drop" or sum(lengths) < excess:
            return Dropped("too_long")
        cuts = zip(pieces, may_cut, shares(lengths, excess), strict=True)
        return [piece[:keep] if cut else piece for piece, cut, keep in cuts], excess

    def _rendered(self, record: Record, turn: int | None = None) -> Tokens | Dropped:
        """A decoder's tokens, with all answers marked or the last one, `turn`, alone."""
        chat = self._renderer.chat(record)
        marked = self._renderer.whole(chat) if turn is None else self._renderer.last(chat, turn)
        return self._encoded(chat, marked)

    def _encoded(self, chat: Chat, marked: Marked | None) -> Tokens | Dropped:
        """A decoder's tokens of a rendered conversation; dropped if it could not be marked."""
        return _UNSTABLE if marked is None else self._guarded(self._tokens(chat, marked))

    def _decoder_example(
        self,
        record: Record,
        weights: Sequence[float],
        turn: int,
        render: Callable[[Record], Tokens | Dropped],
        tokens: Tokens | None = None,
    ) -> Encoded | Dropped:
        """What `render` gives, or `tokens` if it did; `turn` is the last trained answer."""
        cuttable = [i for i, weight in enumerate(weights) if not weight]
        rendered = tokens or render(record)
        if isinstance(rendered, Dropped):
            return rendered
        fitted = self._fitted(record, rendered, cuttable, "max_length", render)
        if isinstance(fitted, Dropped):
            return fitted
        tokens, truncated = fitted
        lengths = [*map(len, tokens.pieces)]
        of_pieces = np.array([weights[t] if t >= 0 else 0.0 for t in tokens.turns], np.float32)
        trained = (i for i, weight in enumerate(of_pieces.tolist()) if weight and lengths[i])
        if (first := next(trained, None)) is None:
            return _UNSTABLE
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

    def _encoder_decoder_example(
        self, record: Record, turn: int, weight: float
    ) -> Encoded | Dropped:
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
            cut_pieces = self.fit(tokens.pieces, cut, "inputs_length", record.where)
            if isinstance(cut_pieces, Dropped):
                return cut_pieces
            pieces, truncated = cut_pieces
            tokens = tokens._replace(pieces=pieces)
        else:
            fitted = self._fitted(
                before, tokens, range(turn), "inputs_length", self._encoder_tokens
            )
            if isinstance(fitted, Dropped):
                return fitted
            tokens, truncated = fitted
        answer = self._plain_tokens(dataclasses.replace(record, messages=(message,), tools=()))
        targets = [*answer.pieces, [self.tokenizer.eos_id]]
        whole = self.fit(targets, [False] * len(targets), "targets_length", record.where)
        if isinstance(whole, Dropped):
            return whole
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
        build: Callable[[Record], Tokens | Dropped],
    ) -> tuple[Tokens, int] | Dropped:
        """Tokens that fit, the longest of the contents that may be cut without their ends.

        Contents are cut and the conversation is written again, until it fits.
        """
        room, size = self._lengths[field], tokens.size
        if size <= room:
            return tokens, 0
        if self.over_length != "truncate-prompt":
            fitted = self.fit(tokens.pieces, [False] * len(tokens.pieces), field, record.where)
            if isinstance(fitted, Dropped):
                return fitted
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
            built = build(dataclasses.replace(record, messages=tuple(messages)))
            if isinstance(built, Dropped):
                return built
            tokens = built
            over = tokens.size - room
            if over <= 0:
                alone = tokens.pieces[0] == self.guard and tokens.turns[1] != -1
                if self.architecture == "decoder" and alone:
                    break  # Nothing of the prompt is left.
                return tokens, size - tokens.size
            excess = most + 1 if excess == most else min(excess + over, most)
        return Dropped("too_long")


def _all_or_dropped(examples: Iterable[Encoded | Dropped]) -> list[Encoded] | Dropped:
    """All examples of a record, or why the first that is missing was dropped."""
    found = []
    for example in examples:
        if isinstance(example, Dropped):
            return example
        found.append(example)
    return found


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
