"""Records: accepted forms, and one-line errors for everything else."""

import json

import numpy as np
import pytest

from ift_jax.errors import UserError
from ift_jax.text.records import Message, parse_record

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
TOOL = {"role": "tool", "content": "t"}
CALL = {"id": "1", "function": {"name": "f", "arguments": '{"x": null}'}}
BAD_CALL = {"function": {"name": "f", "arguments": "x"}}


def test_text_to_text():
    record = parse_record({"inputs": b"caf\xc3\xa9", "targets": "", "other": 3}, "f:1")
    assert record.messages == (Message("user", "café"), Message("assistant", ""))
    assert record.text_to_text and record.references == () and record.where == "f:1"


@pytest.mark.parametrize(
    "references",
    [["a", "b"], '["a", "b"]', b'["a", "b"]', np.array([b"a", b"b"], object), ("a", "b")],
)
def test_references_are_a_list_or_json(references):
    record = parse_record({"inputs": "q", "targets": "a", "references": references}, "f:1")
    assert record.references == ("a", "b")


@pytest.mark.parametrize("references", [None, "", [], b""])
def test_no_references(references):
    fields = {"inputs": "q", "targets": "a", "references": references}
    assert parse_record(fields, "f:1").references == ()


def test_messages_as_a_list_or_json():
    messages = [SYSTEM, USER, {**ANSWER, "weight": 0.5, "id": 7, "tool_calls": None}, TOOL, ANSWER]
    expected = (
        Message("system", "s"),
        Message("user", "q"),
        Message("assistant", "a", 0.5),
        Message("tool", "t"),
        Message("assistant", "a"),
    )
    for value in (messages, json.dumps(messages), json.dumps(messages).encode()):
        record = parse_record({"messages": value, "tools": ""}, "f:1")
        assert record.messages == expected and not record.text_to_text


def test_tools_calls_and_thoughts():
    tools = [{"type": "function", "function": {"name": "f", "strict": None, "parameters": {}}}]
    calling = {"role": "assistant", "tool_calls": [CALL], "reasoning": "hm", "content": None}
    messages = [USER, calling, {**TOOL, "tool_call_id": "1", "name": "f"}, ANSWER]
    call = {"type": "function", "id": "1", "function": {"name": "f", "arguments": {"x": None}}}
    for encode in (lambda value: value, json.dumps):
        record = parse_record({"messages": encode(messages), "tools": encode(tools)}, "f:1")
        assert record.tools == (
            {"type": "function", "function": {"name": "f", "parameters": {}}},
        )  # Nulls that Arrow filled in are gone; those in a call's own JSON stay.
        assert record.messages[1] == Message(
            "assistant", "", reasoning_content="hm", tool_calls=(call,)
        )
        assert record.messages[2] == Message("tool", "t", name="f", tool_call_id="1")


def test_a_prompt_needs_no_answer_and_loses_one():
    assert parse_record({"inputs": "q"}, "f", prompt_only=True).messages == (Message("user", "q"),)
    answered = parse_record({"inputs": "q", "targets": "a"}, "f", prompt_only=True)
    assert answered.messages == (Message("user", "q"),) and answered.text_to_text
    chat = parse_record({"messages": [SYSTEM, USER, ANSWER]}, "f", prompt_only=True)
    assert [m.role for m in chat.messages] == ["system", "user"]
    with pytest.raises(UserError, match="f: field 'messages': expected a turn to answer"):
        parse_record({"messages": [SYSTEM]}, "f", prompt_only=True)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "expected the fields 'inputs' and 'targets', or 'messages'; found none"),
        ({"input": "q"}, "found 'input'"),
        ({"inputs": "q"}, "field 'targets' is missing"),
        ({"inputs": "q", "target": "a"}, "'targets' is missing; did you mean 'target'?"),
        ({"inputs": 3, "targets": "a"}, "field 'inputs': expected a text, found a number ('3')"),
        ({"inputs": None, "targets": "a"}, "field 'inputs': expected a text, found null"),
        ({"inputs": b"\xff", "targets": "a"}, "field 'inputs': expected valid UTF-8 text"),
        ({"inputs": "\ud83d", "targets": "a"}, "field 'inputs': expected valid UTF-8 text"),
        ({"inputs": "q", "targets": "a", "references": "x"}, "'references': expected a list"),
        ({"inputs": "q", "targets": "a", "references": [1]}, "references[0]: expected a text"),
        ({"messages": []}, "expected at least one message"),
        ({"messages": "{"}, "found text that is not JSON"),
        ({"messages": {"role": "user"}}, "expected a list of messages, found an object"),
        ({"messages": ["hi"]}, "messages[0]: expected an object with 'role' and 'content'"),
        ({"messages": [{"from": "human", "value": "q"}]}, "'role' is missing; found 'from'"),
        ({"messages": [{"role": "user"}]}, "messages[0]: field 'content' is missing"),
        ({"messages": [{**USER, "role": "asistant"}]}, "did you mean 'assistant'?"),
        ({"messages": [{**USER, "content": None}]}, "messages[0].content: expected a text, found"),
        ({"messages": [ANSWER]}, "messages[0].role: expected 'system' or 'user' at the beginn"),
        ({"messages": [USER, USER]}, "messages[1].role: expected 'assistant' after 'user'"),
        ({"messages": [USER, ANSWER, SYSTEM]}, "messages[2].role: expected 'user' or 'tool' after"),
        ({"messages": [USER, TOOL]}, "messages[1].role: expected 'assistant' after 'user'"),
        ({"messages": [USER, ANSWER, TOOL, USER]}, "messages[3].role: expected 'tool' or"),
        ({"messages": [USER, {**ANSWER, "weight": -1}]}, "messages[1].weight: expected a number"),
        ({"messages": [USER, {**ANSWER, "weight": "1"}]}, "messages[1].weight: expected a number"),
        ({"messages": [USER, {**ANSWER, "weight": True}]}, "messages[1].weight: expected a number"),
        ({"messages": [USER, {**ANSWER, "weight": float("nan")}]}, "messages[1].weight: expected"),
        ({"messages": [USER, {**ANSWER, "wieght": 0}]}, "messages[1].wieght: did you mean 'weigh"),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "messages[0].weight: only an assistant's"),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{}]}]},
            "messages[1].tool_calls[0]: expected",
        ),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [BAD_CALL]}]},
            "[0]: arguments: expected JSON",
        ),
        ({"messages": [{**USER, "tool_calls": [CALL]}]}, "[0].tool_calls: only an assistant has"),
        ({"messages": [{**USER, "thinking": "x"}]}, "[0].thinking: only an assistant has it, not"),
        (
            {"messages": [USER, ANSWER], "tools": "[3]"},
            "tools[0]: expected an object, found a numb",
        ),
    ],
)
def test_the_error_of_a_bad_record_is_one_line_with_place_and_field(fields, words):
    with pytest.raises(UserError) as raised:
        parse_record(fields, "data.jsonl:7")
    message = str(raised.value)
    assert message.startswith("data.jsonl:7: ") and words in message and "\n" not in message
