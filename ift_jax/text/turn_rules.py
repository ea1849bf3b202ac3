"""What is done with a conversation whose turns are in an unusual order."""

import dataclasses
from collections.abc import Sequence

from ift_jax.config.data import DataConfig
from ift_jax.text.records import Message, Range, Record, order_problem

_BETWEEN = "\n\n"  # Between the texts of turns that become one.


@dataclasses.dataclass(frozen=True)
class TurnRules:
    """The rules of a config; see the fields of the same names in `DataConfig`."""

    merge_same_role: bool = False
    drop_leading_assistant: bool = False
    any_turn_order: bool = False

    @classmethod
    def of(cls, data: DataConfig) -> "TurnRules":
        """Return what a config says."""
        return cls(data.merge_same_role, data.drop_leading_assistant, data.any_turn_order)

    def apply(self, record: Record) -> Record | str:
        """Return the record with its turns in order, or why they are not, for counting."""
        if record.text_to_text or record.is_text:
            return record
        problem = order_problem(record.messages)
        if problem is None:
            return record
        messages = record.messages
        if self.drop_leading_assistant:
            messages = _without_leading_assistant(messages)
        if self.merge_same_role:
            messages = _merged(messages)
        problem = order_problem(messages) if messages else problem
        if problem is None or (self.any_turn_order and messages):
            return dataclasses.replace(record, messages=messages)
        return problem


AS_GIVEN = TurnRules()  # Nothing is changed, and bad orders are dropped.


def _without_leading_assistant(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Leave out what comes before the first question, but for the system's turn."""
    first = next((i for i, message in enumerate(messages) if message.role == "user"), len(messages))
    systems = [message for message in messages[:first] if message.role == "system"]
    return (*systems, *messages[first:])


def _merged(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Merge turns of one role that come one after another, where one turn can say the same."""
    merged: list[Message] = []
    for message in messages:
        if merged and message.role == merged[-1].role and _can_merge(merged[-1], message):
            merged[-1] = _joined(merged[-1], message)
        else:
            merged.append(message)
    return tuple(merged)


def _can_merge(first: Message, second: Message) -> bool:
    """Whether nothing is lost if two turns become one: each result of a tool stays its own."""
    is_same = (first.weight, first.name, first.role_name) == (
        second.weight,
        second.name,
        second.role_name,
    )
    # In one turn, thoughts come before the text, and calls after it.
    is_in_order = not (first.tool_calls or first.function_calls or second.reasoning_content)
    return is_same and is_in_order and first.role != "tool" and not first.functions


def _joined(first: Message, second: Message) -> Message:
    shift = len(first.content) + len(_BETWEEN)
    ranges: tuple[Range, ...] = ()
    if first.ranges or second.ranges:
        # A turn without ranges is trained as a whole.
        ranges = first.ranges or (Range(0, len(first.content), True),)
        later = second.ranges or (Range(0, len(second.content), True),)
        ranges += tuple(Range(r.begin + shift, r.end + shift, r.trained) for r in later)
    return dataclasses.replace(
        second,
        content=first.content + _BETWEEN + second.content,
        reasoning_content=first.reasoning_content,
        ranges=ranges,
    )
