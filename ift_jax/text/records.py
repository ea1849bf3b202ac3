"""Records: conversations, text-to-text pairs and plain texts, in the one form that is encoded.

`ift_jax.text.rows` reads them from rows as people write them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError

ROLES = ("system", "user", "assistant", "tool")
TEXT_ROLE = "text"  # A plain text is one message, and all its tokens are trained.
# Which roles may come after which; None stands for the beginning.
_MAY_FOLLOW: Mapping[str | None, tuple[str, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}
# Why turns are in a wrong order, for counting.
ASSISTANT_FIRST = "assistant_first"
SAME_ROLE_TWICE = "same_role_twice"
SYSTEM_IN_THE_MIDDLE = "system_in_the_middle"
WRONG_ORDER = "turns_in_wrong_order"


class Range(NamedTuple):
    """A stretch of a message's content: half-open, in characters."""

    begin: int
    end: int
    trained: bool


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: One of `ROLES`, or `TEXT_ROLE`.
        content: The text.
        weight: The loss weight of the turn, if its role is trained; None is 1, and 0 is untrained.
        reasoning_content: What an assistant thought before it answered.
        tool_calls: Calls in OpenAI's form, with the arguments as an object.
        name: The name of the speaker, or of the tool.
        tool_call_id: The call that a tool's turn answers.
        role_name: The role as it was written where that is another word, such as "developer": a
            template that knows the word gets it.
        ranges: If there are any, only the content inside of trained ones is trained.
        functions: The tools that a system's turn lists, as a text (Dolci).
        function_calls: The calls of an assistant's turn, as a text (Dolci).
    """

    role: str
    content: str
    weight: float | None = None
    reasoning_content: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str = ""
    tool_call_id: str = ""
    role_name: str = ""
    ranges: tuple[Range, ...] = ()
    functions: str = ""
    function_calls: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """A conversation, a text-to-text pair as one user's and one assistant's turn, or a text.

    Attributes:
        messages: The turns.
        references: What the last trained answer is compared with, besides itself.
        choices: The answers of a text-to-text record that are to be ranked.
        text_to_text: Whether the record was a pair of texts.
        where: Its place in the user's data, for error messages.
        tools: The tools that may be called, as JSON schemas.
        template_options: Variables for the chat template.
        policy: What the row says of `text.policies.Policy`, by the names of its fields.
        weight: The loss weight of the row, by which those of its turns are multiplied.
        rejected: Of a pair, the turns of its rejected side, while `messages` are those of the
            chosen one. Both begin with the same prompt. Empty otherwise.
        unread: The names of the fields that nothing read.
        license: The license of the row, where a filter asks for it.
    """

    messages: tuple[Message, ...]
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    text_to_text: bool = False
    where: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    template_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    policy: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weight: float = 1.0
    rejected: tuple[Message, ...] = ()
    unread: tuple[str, ...] = ()
    license: str = ""

    @property
    def is_text(self) -> bool:
        """Whether the record is a plain text, which no template writes."""
        return len(self.messages) == 1 and self.messages[0].role == TEXT_ROLE


def wrong_turn(messages: Sequence[Message]) -> int | None:
    """Return the index of the first turn whose role may not follow the one before it."""
    before = None
    for i, message in enumerate(messages):
        if message.role not in _MAY_FOLLOW[before]:
            return i
        before = message.role
    return None


def order_problem(messages: Sequence[Message]) -> str | None:
    """Return why turns are in a wrong order, such as `ASSISTANT_FIRST`; None if they are not."""
    i = wrong_turn(messages)
    if i is None:
        return None
    role = messages[i].role
    before = messages[i - 1].role if i else None
    if role == before:
        return SAME_ROLE_TWICE
    if role == "system":
        return SYSTEM_IN_THE_MIDDLE
    return ASSISTANT_FIRST if role == "assistant" and before in (None, "system") else WRONG_ORDER


def order_error(messages: Sequence[Message], where: str) -> UserError:
    """Return the error about messages that are none, or whose roles follow in a wrong order."""
    i = wrong_turn(messages)
    if i is None:
        return UserError(f"{where}: field 'messages': expected at least one message, found none")
    before = messages[i - 1].role if i else None
    after = f"after {before!r}" if before else "at the beginning"
    expected = " or ".join(map(repr, _MAY_FOLLOW[before]))
    place = f"{where}: messages[{i}].role"
    return UserError(f"{place}: expected {expected} {after}, found {messages[i].role!r}")
