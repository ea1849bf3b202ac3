"""Conversations whose turns are in an unusual order."""

import dataclasses

import pytest

from ift_jax.text import records
from ift_jax.text.records import Message, Range, Record
from ift_jax.text.turn_rules import AS_GIVEN, TurnRules

S, U, A, T = (Message(role, role[0]) for role in ("system", "user", "assistant", "tool"))
MERGE = TurnRules(merge_same_role=True)
DROP = TurnRules(drop_leading_assistant=True)
ANY = TurnRules(any_turn_order=True)
CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}


def applied(rules, *messages):
    result = rules.apply(Record(messages))
    return result if isinstance(result, str) else result.messages


def joined(message, text):
    return dataclasses.replace(message, content=text)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((U, A), None),
        ((S, U, A, T, T, A, U), None),
        ((A, U, A), records.ASSISTANT_FIRST),
        ((S, A, U, A), records.ASSISTANT_FIRST),
        ((U, U, A), records.SAME_ROLE_TWICE),
        ((S, S, U, A), records.SAME_ROLE_TWICE),
        ((U, A, A), records.SAME_ROLE_TWICE),
        ((U, A, S, U, A), records.SYSTEM_IN_THE_MIDDLE),
        ((U, S, A), records.SYSTEM_IN_THE_MIDDLE),
        ((U, T, A), records.WRONG_ORDER),
        ((U, A, T, U), records.WRONG_ORDER),
    ],
)
def test_orders_are_told_apart(messages, reason):
    assert applied(AS_GIVEN, *messages) == (reason or messages)
    assert applied(ANY, *messages) == messages


def test_turns_of_one_role_become_one():
    assert applied(MERGE, S, S, U, U, U, A, A, U) == (
        joined(S, "s\n\ns"), joined(U, "u\n\nu\n\nu"), joined(A, "a\n\na"), U
    )  # fmt: skip
    calls = dataclasses.replace(A, tool_calls=(CALL,))
    thinks = dataclasses.replace(A, reasoning_content="t")
    assert applied(MERGE, U, thinks, calls, T, A) == (
        U, dataclasses.replace(thinks, content="a\n\na", tool_calls=(CALL,)), T, A
    )  # fmt: skip


@pytest.mark.parametrize(
    "second",
    [
        dataclasses.replace(A, weight=0.0),
        dataclasses.replace(A, reasoning_content="t"),
        dataclasses.replace(A, name="n"),
    ],
)
def test_turns_that_one_turn_cannot_say_stay_apart(second):
    assert applied(MERGE, U, A, second) == records.SAME_ROLE_TWICE
    first = dataclasses.replace(A, tool_calls=(CALL,))
    assert applied(MERGE, U, first, A) == records.SAME_ROLE_TWICE


def test_ranges_move_with_their_text():
    first = Message("assistant", "abc", ranges=(Range(0, 2, True),))
    [_, both] = applied(MERGE, U, first, Message("assistant", "de"))
    assert both.content == "abc\n\nde" and both.ranges == (Range(0, 2, True), Range(5, 7, True))


def test_what_an_assistant_says_first_is_left_out():
    assert applied(DROP, A, T, A, U, A) == (U, A)
    assert applied(DROP, S, A, U, A) == (S, U, A)
    assert applied(DROP, A, A) == records.ASSISTANT_FIRST
    assert applied(TurnRules(True, True), A, U, U, A) == (joined(U, "u\n\nu"), A)


def test_pairs_and_texts_have_no_order():
    for record in (Record((A,), text_to_text=True), Record((Message("text", "t"),))):
        assert AS_GIVEN.apply(record) is record
