"""An answer as it grows: what is new since the last look, which a stream sends.

An answer that is not streamed is looked at once, so that both are made by the same code.
"""

from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.decoding import Completion, Output, Stops, TextStream, TokenLogprob


class Piece(NamedTuple):
    """What is new of an answer."""

    number: int  # The answer's place among all of the request.
    is_first: bool
    text: str
    logprobs: list[TokenLogprob] | None  # Those of the new tokens.
    finish_reason: str | None  # None while it is generated.


class GrowingAnswers:
    """The answers to one prompt."""

    def __init__(self, first_number: int, n: int, stops: Stops, *, strip: bool):
        """Begin with nothing.

        Args:
            first_number: The number of the first answer.
            n: The number of answers. Where the model gives one, it is the answer n times.
            stops: What ends them.
            strip: Whether their texts have no white space around.
        """
        self._answers = [
            _GrowingAnswer(first_number + i, TextStream(stops, strip=strip)) for i in range(n)
        ]

    def update(self, output: Output) -> list[Piece]:
        """Return what is new."""
        completions: Sequence[Completion] = output.completions
        if len(completions) < len(self._answers):
            completions = list(completions) * len(self._answers)
        found = zip(self._answers, completions, strict=True)
        pieces = [answer.update(completion) for answer, completion in found]
        return [piece for piece in pieces if piece is not None]


class _GrowingAnswer:
    def __init__(self, number: int, stream: TextStream):
        self._number = number
        self._stream = stream
        self._n_sent = 0  # Tokens whose log-probabilities were sent.
        self._is_first = True
        self._ended = False

    def update(self, completion: Completion) -> Piece | None:
        if self._ended:
            return None
        self._ended = bool(completion.finish_reason)
        text = self._stream.update(completion.ids, final=self._ended)
        logprobs = completion.logprobs
        if logprobs is not None:
            logprobs = logprobs[self._n_sent :]
            self._n_sent += len(logprobs)
        if not (text or logprobs or self._ended):
            return None
        is_first, self._is_first = self._is_first, False
        return Piece(self._number, is_first, text, logprobs, completion.finish_reason or None)
