"""What a row says in two ways, or under almost the right name, is never dropped without a word."""

import pytest

from ift_jax.errors import UserError
from ift_jax.text.records import Message, Range
from ift_jax.text.rows.parse_record import RowOptions, parse_record

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
THOUGHT = {"type": "thinking", "thinking": "t"}
TEXT = {"type": "text", "text": "a"}
CALL = {"name": "f", "arguments": {"x": 1}}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"value": "b"}, "messages[1]: expected one of 'content', 'value'; found both, which dif"),
        ({"content": "", "value": "b"}, "messages[1]: expected one of 'content', 'value'; found"),
        ({"from": "human"}, "messages[1]: expected one of 'role', 'from'; found both"),
        (
            {"tool_calls": [CALL], "function_call": {"name": "g", "arguments": {}}},
            "messages[1]: expected one of 'tool_calls', 'function_call'; found both, which differ",
        ),
        (
            {
                "train_detail": [{"begin_offset": 0, "end_offset": 0, "train": True}],
                "training_detail": [{"begin_offset": 0, "end_offset": 0, "train": False}],
            },
            "messages[1]: expected one of 'train_detail', 'training_detail'; found both",
        ),
        (
            {"content": [THOUGHT, TEXT], "reasoning": "u"},
            "messages[1]: expected one thought; found another in its content",
        ),
        ({"content": [TEXT, THOUGHT]}, "content[1]: expected thoughts before the text, found one"),
        (
            {"from": "function_call", "role": None, "content": '{"name": "f"}', "tool_calls": CALL},
            "messages[1]: expected its calls once; found them twice",
        ),
    ],
)
def test_what_a_message_says_twice_and_differently_is_an_error(answer, words):
    with pytest.raises(UserError) as raised:
        parse_record({"messages": [USER, ANSWER | answer]}, "data.jsonl:7")
    message = str(raised.value)
    assert message.startswith("data.jsonl:7: ") and words in message and "\n" not in message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"from": "gpt", "value": "a"}, Message("assistant", "a")),
        # Arrow fills in null where the messages of a column have other names.
        ({"role": None, "content": None, "from": "gpt", "value": "a"}, Message("assistant", "a")),
        (
            {"content": [THOUGHT, TEXT], "thinking": "t"},
            Message("assistant", "a", reasoning_content="t"),
        ),
        (
            {"tool_calls": [CALL | {"id": "1"}], "function_call": CALL},
            Message(
                "assistant",
                "a",
                tool_calls=({"type": "function", "id": "1", "function": CALL},),
            ),
        ),
    ],
)
def test_what_a_message_says_twice_and_alike_is_read_once(answer, expected):
    record = parse_record({"messages": [USER, ANSWER | answer]}, "f:1")
    assert record.messages[1] == expected and record.unread == ()


def test_one_of_two_names_can_be_ignored():
    row = {"messages": [USER, ANSWER | {"value": "b"}]}
    for ignored, content in (("value", "a"), ("content", "b")):
        record = parse_record(row, "f:1", options=RowOptions(ignored=frozenset({ignored})))
        assert record.messages[1].content == content


def test_other_fields_of_a_range_are_named():
    item = {"begin_offset": 0, "end_offset": 0, "train": True, "label": "x", "note": None}
    record = parse_record({"messages": [USER, ANSWER | {"train_detail": [item]}]}, "f:1")
    assert record.messages[1].ranges == (Range(0, 1, True),)
    assert record.unread == ("messages[].train_detail[].label",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weights", "did you mean 'weight'?"),
        ("Weight", "did you mean 'weight'?"),
        ("is_trainable", "did you mean 'trainable'?"),
        ("loss_weights", "did you mean 'loss_weight'?"),
        ("train_detail", "expected it on the message whose characters it counts"),
    ],
)
def test_a_misspelled_switch_of_a_row_is_an_error(name, words):
    row = {"inputs": "q", "targets": "a", name: 0.5}
    with pytest.raises(UserError) as raised:
        parse_record(row, "data.jsonl:7")
    assert str(raised.value).startswith(f"data.jsonl:7: row.{name}: {words}")
    record = parse_record(row, "f:1", options=RowOptions(ignored=frozenset({name})))
    assert record.unread == (name,) and record.weight == 1


def test_fields_about_something_else_are_only_counted():
    names = ("height", "score", "source", "strain", "terrain", "trained_by", "uuid")
    record = parse_record({"inputs": "q", "targets": "a", **dict.fromkeys(names, "x")}, "f:1")
    assert record.unread == names


def test_a_plain_text_has_no_system_turn():
    with pytest.raises(UserError, match="field 'system': a row of plain text has no system turn"):
        parse_record({"text": "t", "system": "s"}, "f:1")
