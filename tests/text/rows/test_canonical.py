"""Records pass through SeqIO as texts without a loss."""

import random

import pytest

from ift_jax.text.records import Message, Range, Record
from ift_jax.text.rows.canonical import chat_fields, pair_fields
from ift_jax.text.rows.parse_record import parse_record
from tests.text.conversations import content, conversations
from tests.text.shapes import CALL, TOOLS


def _richer(record: Record, draw: random.Random) -> Record:
    """Return a record whose messages have what messages may have."""
    messages = []
    for message in record.messages:
        more = {"name": draw.choice(("", "Ann"))}
        if message.role == "assistant":
            more["reasoning_content"] = draw.choice(("", content(draw)))
            more["tool_calls"] = draw.choice(((), (CALL,)))
            if len(message.content) > 2:
                more["ranges"] = draw.choice(((), (Range(0, 2, True), Range(1, 2, False))))
        if message.role == "system":
            more["role_name"] = draw.choice(("", "developer"))
            more["functions"] = draw.choice(("", "[]"))
        messages.append(Message(message.role, message.content, message.weight, **more))
    return Record(
        tuple(messages),
        references=draw.choice(((), ("é", "b"))),
        where="x",
        tools=draw.choice(((), tuple(TOOLS))),
        template_options=draw.choice(({}, {"a": [1, None, {"b": None}]})),
    )


def test_a_conversation_is_the_same_after_the_way_through_texts():
    draw = random.Random(1)
    for record in conversations(3, 200, tools=True):
        rich = _richer(record, draw)
        fields = chat_fields(rich)
        assert all(isinstance(text, str) for text in fields.values())
        assert parse_record(fields, "x") == rich


@pytest.mark.parametrize("weight", [1.0, 0.0, 0.1])
def test_a_pair_is_the_same_after_the_way_through_texts(weight):
    system, asked = Message("system", "s"), Message("user", "é")
    answer = Message("assistant", "a")
    policy = {"train_on": "last", "train_thinking": False} if weight else {}
    for before in ((), (system,), (asked, answer), (system, asked, answer)):
        record = Record(
            (*before, asked, answer),
            ("r",),
            ("a", "r"),
            where="x",
            text_to_text=not before,
            policy=policy,
            weight=weight,
        )
        fields = pair_fields(record)
        assert parse_record(fields, "x") == record
    assert pair_fields(Record((asked, answer, asked))) is None
    assert pair_fields(Record((asked, answer), tools=tuple(TOOLS))) is None
    assert pair_fields(Record((asked, Message("assistant", "a", name="n")))) is None
