"""A conversation in the terminal, or through a pipe."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding import Generator, Options, TextStream
from ift_jax.errors import UserError
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.text.records import Message

HELP = """\
/system TEXT  sets the system message; without a text there is none
/reset        forgets the conversation
/quit         ends the chat; so does the end of the input
Ctrl-C        stops an answer"""


def room(text_generator: TextGenerator) -> tuple[int, int]:
    """The most tokens of a prompt with its answer, and of an answer: as made for, or trained on."""
    model = text_generator.config.model
    lengths = text_generator.config.row_lengths
    if isinstance(model, DecoderConfig):
        longest = model.max_length or lengths.decoder
        return longest, longest - 1
    return lengths.total, lengths.decoder


class Chat:
    """The turns of a conversation (user, assistant, ...), its system message, and its model."""

    def __init__(
        self,
        text_generator: TextGenerator,
        generator: Generator,
        options: Options,
        *,
        system: str = "",
        note: Callable[[str], None] = print,
    ):
        """Begins without turns; `note` is told what the user should know."""
        self._answerer, self._generator, self._options = text_generator, generator, options
        self._note, self.system = note, system
        # XLA converts bfloat16 weights on CPU, in every block anew.
        slow = text_generator.model.config.dtype == "bfloat16" and jax.default_backend() == "cpu"
        self._block = 16 if slow else 4
        self.reset()

    def reset(self) -> None:
        """Forgets the turns."""
        self.turns: list[Message] = []
        self._answers = 0

    def reply(self, text: str) -> Iterator[str]:
        """The answer to the user's next turn, piece by piece as it is made.

        What was shown becomes a turn, even if the iteration is broken off. UserError: the turn
        by itself does not fit, or the template refuses it; the conversation stays as it was.
        """
        prompt, self.turns = self._fit([*self.turns, Message("user", text)])
        stream = TextStream(self._answerer.stops)
        new = self._generator.stream(prompt, self._options, index=self._answers, block=self._block)
        self._answers += 1
        try:
            for ids in new:
                yield stream.update(ids)
            yield stream.update(ids, final=True)
        finally:
            self.turns.append(Message("assistant", stream.shown))

    def _fit(self, turns: list[Message]) -> tuple[list[int], list[Message]]:
        """The prompt of the newest turns that fit, and these turns."""
        longest = room(self._answerer)[0] - self._options.max_new_tokens
        system = [Message("system", self.system)] if self.system else []
        for first in range(0, len(turns), 2):
            ids = self._answerer.formatter.prompt([*system, *turns[first:]]).tolist()
            if len(ids) <= longest:
                if first:
                    self._note(f"(more than {longest} tokens: the oldest turns are forgotten)")
                return ids, turns[first:]
        raise UserError(f"expected a text of at most {longest} tokens, with its system message")


def converse(
    chat: Chat, read: Callable[[], str], write: Callable[[str], None], note: Callable[[str], None]
) -> None:
    """Answers lines until `read` raises EOFError or the user quits.

    `write` gets the answers piece by piece, each with a newline at its end, `note` the rest.
    """
    while True:
        try:
            line = read().strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            note("(/quit ends the chat)")
            continue
        word, _, rest = line.partition(" ")
        if word == "/quit":
            return
        if word == "/reset":
            chat.reset()
        elif word == "/system":
            chat.system = rest.strip()
        elif word == "/help":
            note(HELP)
        elif word.startswith("/"):
            note(f"{word}: no such command\n{HELP}")
        elif line:
            try:
                with contextlib.closing(chat.reply(line)) as pieces:  # type: ignore[type-var]
                    with contextlib.suppress(KeyboardInterrupt):
                        for piece in pieces:
                            write(piece)
                write("\n")
            except UserError as error:
                note(f"error: {error}")
