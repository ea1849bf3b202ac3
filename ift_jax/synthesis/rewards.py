"""What a completion is worth: the interface of all rewards, and how one without a value is counted.

`reward_process` computes rewards that a function gives, `model_rewards` those of models.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ift_jax.text.records import Record

# Why a completion has no reward; a prompt with one is counted under each of its reasons.
RAISED = "raised"  # The function raised an exception.
NOT_A_NUMBER = "not a number"  # It returned no number, or one that is not finite.
TIMED_OUT = "timed out"
DIED = "died"  # It ended its process.
TOO_LONG = "too long"  # The prompt, or the conversation, does not fit the model.


class Sample(NamedTuple):
    """A completion to judge.

    Attributes:
        where: Its place for messages, such as "prompts.jsonl:3, sample 2".
        row: The fields of the prompt's row.
        record: The prompt.
        completion: The text.
    """

    where: str
    row: Mapping[str, Any]
    record: Record
    completion: str


class Outcome(NamedTuple):
    """A reward, or why there is none.

    Attributes:
        value: The reward, a finite number; None if there is none.
        reason: One of the reasons above; "" with a value.
        message: What happened, in one line without the completion's place; "" with a value.
    """

    value: float | None
    reason: str = ""
    message: str = ""


class Reward(Protocol):
    """Judges completions."""

    name: str  # What messages call it, such as "reward function rewards.py:score".

    def settings(self) -> dict[str, Any]:
        """Return all that determines the rewards, in JSON's types."""
        ...

    def score(self, samples: Sequence[Sample]) -> list[Outcome]:
        """Judge some completions; those that are judged together never change."""
        ...
