"""A conversation in the terminal, or through a pipe."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding import Generator, GrowingText, Options, Request, TextStream
from ift_jax.errors import UserError
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.text.records import Message

HELP = """\
/system TEXT  sets the system message; without a text, removes it
/reset        forgets the conversation
/quit         ends the chat; so does the end of the input
Ctrl-C        stops an answer"""

_BYTE_ORDER_MARK = "\ufeff"  # In front of the first line of a file that comes through a pipe.


class TokenLimits(NamedTuple):
    """How long a conversation and an answer may be."""

    total: int  # Most tokens of a prompt with its answer.
    answer: int  # Most tokens of an answer.


def token_limits(text_generator: TextGenerator) -> TokenLimits:
    """The lengths that a model was made for or, if it has no maximum, was trained on."""
    model = text_generator.config.model
    lengths = text_generator.config.row_lengths
    if isinstance(model, DecoderConfig):
        total = model.max_length or lengths.decoder
        return TokenLimits(total, total - 1)
    return TokenLimits(lengths.total, lengths.decoder)


class Chat:
    """A conversation with a model.

    Attributes:
        turns: the messages so far: user, assistant, user, ...
        system: the system message, or "".
    """

    def __init__(
        self,
        text_generator: TextGenerator,
        generator: Generator,
        options: Options,
        *,
        system: str = "",
        note: Callable[[str], None] = print,
    ):
        """Begins without turns.

        Args:
            text_generator: the model's format.
            generator: the model.
            options: how answers are generated.
            system: the system message.
            note: receives messages for the user that are not answers.
        """
        self._text_generator = text_generator
        self._text = GrowingText(generator)
        self._options = options
        self._note = note
        self.system = system
        # On a CPU, XLA converts bfloat16 weights to float32 anew in every block.
        slow = text_generator.model.config.dtype == "bfloat16" and jax.default_backend() == "cpu"
        self._block = 16 if slow else 4
        self.reset()

    def reset(self) -> None:
        """Forgets the turns."""
        self.turns: list[Message] = []
        self._answers = 0

    def reply(self, text: str) -> Iterator[str]:
        """Answers the user's next turn, piece by piece as it is generated.

        What was shown becomes a turn, even if the iteration is stopped early.

        Raises:
            UserError: the turn alone does not fit, the template refuses it, or it is no valid
                text; the conversation stays as it was.
        """
        prompt, self.turns = self._fit([*self.turns, Message("user", text)])
        stream = TextStream(self._text_generator.stops)
        request = Request(prompt, self._options, self._answers)
        outputs = self._text.stream(request, block=self._block)
        self._answers += 1
        try:
            ids: list[int] = []
            for output in outputs:
                ids = output.completions[0].ids
                yield stream.update(ids)
            yield stream.update(ids, final=True)
        finally:
            outputs.close()
            self.turns.append(Message("assistant", stream.shown))

    def _fit(self, turns: list[Message]) -> tuple[list[int], list[Message]]:
        """The prompt ids of the newest turns that fit, and these turns.

        If turns must be forgotten, so many are that a quarter of the room is free: all that is left
        is read again then, which should not happen at every turn.
        """
        most = token_limits(self._text_generator).total - self._options.max_new_tokens
        system = [Message("system", self.system)] if self.system else []
        _check_texts([*system, *turns])
        fitting: list[tuple[list[int], list[Message]]] = []
        for first in range(0, len(turns), 2):
            ids = self._text_generator.formatter.prompt([*system, *turns[first:]]).tolist()
            if len(ids) <= most:
                fitting.append((ids, turns[first:]))
            if fitting and (first == 0 or len(ids) <= most * 3 // 4):
                break
        if fitting:
            ids, kept = fitting[-1]
            if len(kept) < len(turns):
                self._note(f"(more than {most} tokens: the oldest turns are forgotten)")
            return ids, kept
        raise UserError(f"expected a text of at most {most} tokens, with its system message")


def _check_texts(turns: Sequence[Message]) -> None:
    """Raises a UserError for bytes that are not UTF-8, which Python reads as lone surrogates."""
    for turn in turns:
        try:
            turn.content.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"expected UTF-8 in the {turn.role}'s text: {error.reason}") from None


def converse(
    chat: Chat, read: Callable[[], str], write: Callable[[str], None], note: Callable[[str], None]
) -> None:
    """Answers lines until the user quits.

    Args:
        chat: the conversation.
        read: returns the next line; raises EOFError at the end.
        write: receives the answers piece by piece, each with a newline at its end.
        note: receives everything else.
    """
    while True:
        try:
            line = read().removeprefix(_BYTE_ORDER_MARK).strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            note("(/quit ends the chat)")
            continue
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command == "/reset":
            chat.reset()
        elif command == "/system":
            chat.system = rest.strip()
        elif command == "/help":
            note(HELP)
        elif command.startswith("/"):
            note(f"{command}: no such command\n{HELP}")
        elif line:
            _show_reply(chat, line, write, note)


def _show_reply(
    chat: Chat, line: str, write: Callable[[str], None], note: Callable[[str], None]
) -> None:
    """Writes the answer to a line; Ctrl-C stops it, a mistake becomes a note."""
    try:
        with contextlib.closing(chat.reply(line)) as pieces:  # type: ignore[type-var]
            with contextlib.suppress(KeyboardInterrupt):
                for piece in pieces:
                    write(piece)
        write("\n")
    except UserError as error:
        note(f"error: {error}")
