"""What synthesis asks of a model, and what the model answers: the same for any kind of model.

An answer must be a pure function of the model and its request: no request sees the others of its
call, and what is drawn depends on the request's own seed. Everything that synthesis makes can
therefore be made again, and an interrupted run continues as if nothing had happened.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ift_jax.errors import UserError
from ift_jax.text.records import Message

if TYPE_CHECKING:
    from ift_jax.synthesis.answers_so_far import AnswersSoFar

STOP = "stop"  # A stop token or a stop string ended the text.
LENGTH = "length"  # `max_tokens` ended it.
TOO_LONG = "too long"  # The prompt leaves the model no room: nothing was generated.


@dataclasses.dataclass(frozen=True)
class TextRequest:
    """A prompt, and how it is to be continued."""

    # A text to be continued as it is, or the messages before an answer, which the model's own chat
    # template writes.
    prompt: str | tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0  # 0 is greedy.
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()  # Texts that end an answer, which is what stands before them.
    seed: int = 0  # All that what is drawn depends on.
    n: int = 1  # Answers to the prompt; more than one need a temperature.
    log_prob: bool = False  # Whether to tell an answer's log-probability.
    # Whether control strings such as "<|im_start|>" in a text prompt stand for their tokens.
    controls: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens: expected 1 or more; got {self.max_tokens}")
        if not 0 <= self.temperature <= 100:
            raise UserError(f"temperature: expected 0 to 100; got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: expected more than 0 and at most 1; got {self.top_p}")
        if not 0 < self.repetition_penalty <= 100:
            raise UserError(
                f"repetition_penalty: expected more than 0 and at most 100; "
                f"got {self.repetition_penalty}"
            )
        if self.n < 1 or self.n > 1 and self.temperature == 0:
            raise UserError(f"n: expected 1, or more with a temperature above 0; got {self.n}")


class TextCompletion(NamedTuple):
    """One answer.

    Attributes:
        text: The text before what ended it, surrounding white space included.
        finish_reason: `STOP`, `LENGTH`, `TOO_LONG`, or another word of an endpoint's.
        log_prob: The sum of the natural log-probabilities of its tokens, stop token included,
            before temperature and `top_p`; None if it was not asked for or is not known.
        n_tokens: The number of tokens that this is the sum of; 0 where it is not known.
    """

    text: str
    finish_reason: str
    log_prob: float | None = None
    n_tokens: int = 0


class Interrupted(Exception):
    """A signal asked to stop before the model had answered."""


class Completer(Protocol):
    """A model that answers requests."""

    def complete(
        self, requests: Sequence[TextRequest], so_far: "AnswersSoFar | None" = None
    ) -> list[list[TextCompletion]]:
        """Return `TextRequest.n` answers to each request.

        Args:
            requests: The requests of a call.
            so_far: Has answers of the call, and keeps new ones as they arrive. A model that
                answers the requests of a call together leaves it alone.

        Raises:
            UserError: The model cannot be asked.
            Interrupted: The model was told to stop.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Return what tells this model from another, in JSON's types."""
        ...
