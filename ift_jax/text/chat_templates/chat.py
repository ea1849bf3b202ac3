"""A conversation as a chat template sees it, and as it is encoded: spans of text."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Span(NamedTuple):
    """A stretch of a rendered conversation: one answer, or what stands between two answers.

    No token crosses the edge of a span, because generation is prompted with exactly the spans
    before an answer.
    """

    text: str  # With the control strings that a user typed broken; see `control_strings`.
    is_answer: bool = False  # Whether the model generates it.
    message: int | None = None  # The message whose loss weight the span has.

    @property
    def trained(self) -> bool:
        """Whether the span may carry loss; its message's weight says how much."""
        return self.message is not None


class Chat(NamedTuple):
    """A record as a template sees it."""

    messages: list[dict[str, Any]]  # Plain data, with the control strings in it broken.
    tools: list[Any] | None  # Likewise; None if there are none.
    options: Mapping[str, Any]  # Further variables for the template.
    other_roles: Mapping[int, str]  # Roles by message that the template has another word for.
    n_characters: int  # Approximate length.
    control_strings: int  # How many its texts contain.
    restore: Mapping[int, str] | None  # A `str.translate` table; see `_UserTexts.restore`.
    where: str  # The record's place, for errors.

    @property
    def answers(self) -> list[int]:
        """The indices of the assistant's messages."""
        return [i for i, message in enumerate(self.messages) if message["role"] == "assistant"]
