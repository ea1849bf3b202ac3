"""Rows as records: accepted forms, and one-line errors for everything else."""

import json

import numpy as np
import pytest

from ift_jax.config.data import SCHEMAS
from ift_jax.errors import UserError
from ift_jax.text.policies import Policy
from ift_jax.text.records import Message, Range
from ift_jax.text.rows.calls import parse_calls_text
from ift_jax.text.rows.parse_record import RowOptions, parse_record
from ift_jax.text.rows.shapes import BY_NAME
from ift_jax.text.trained_turns import message_weights

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
        # Nulls in objects, which Arrow fills in, are gone; those in a JSON text stay.
        [tool] = record.tools
        assert ("strict" in tool["function"]) == (encode is json.dumps)
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
        ({}, "cannot tell what the row is from its fields: none; expected one of these sets: 'mes"),
        ({"input": "q"}, "cannot tell what the row is from its fields: 'input'"),
        ({"inputs": "q"}, "field 'targets' is missing"),
        ({"inputs": "q", "target": "a"}, "'targets' is missing; did you mean 'target'?"),
        ({"inputs": 3, "targets": "a"}, "field 'inputs': expected a text, found a number ('3')"),
        ({"inputs": None, "targets": "a"}, "field 'inputs': expected a text, found null"),
        ({"inputs": b"\xff", "targets": "a"}, "field 'inputs': expected valid UTF-8 text"),
        ({"inputs": "\ud83d", "targets": "a"}, "field 'inputs': expected valid UTF-8 text"),
        (
            {"inputs": "q", "targets": "a", "references": "x"},
            "field 'references': column 1: Expecting value; expected a list of texts or",
        ),
        ({"inputs": "q", "targets": "a", "references": [1]}, "references[0]: expected a text"),
        ({"messages": []}, "expected at least one message"),
        ({"messages": [], "system": "s"}, "expected at least one message"),
        (
            {"messages": [{**USER, "content": [{"type": ["text"]}]}]},
            "expected a part of type 'text'",
        ),
        ({"messages": "{"}, "expected a list of messages or its JSON"),
        ({"messages": {"role": "user"}}, "expected a list of messages, found an object"),
        ({"messages": ["hi"]}, "messages[0]: expected an object with 'role' and 'content'"),
        ({"messages": [{"who": "human", "value": "q"}]}, "'role' is missing; found 'who', 'value'"),
        ({"messages": [{"role": "user"}]}, "messages[0]: field 'content' is missing"),
        ({"messages": [{**USER, "role": "asistant"}]}, "did you mean 'assistant'?"),
        ({"messages": [{**USER, "content": None}]}, "messages[0].content: expected a text, found"),
        ({"messages": [USER, {**ANSWER, "weight": -1}]}, "messages[1].weight: expected a number"),
        ({"messages": [USER, {**ANSWER, "weight": "1"}]}, "messages[1].weight: expected a number"),
        ({"messages": [USER, {**ANSWER, "weight": float("nan")}]}, "messages[1].weight: expected"),
        ({"messages": [USER, {**ANSWER, "wieght": 0}]}, "messages[1].wieght: did you mean 'weigh"),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{}]}]},
            "messages[1].tool_calls[0]: expected",
        ),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [BAD_CALL]}]},
            "[0]: arguments: column 1: Expecting value; expected an object or its JSON",
        ),
        ({"messages": [{**USER, "tool_calls": [CALL]}]}, "[0].tool_calls: only an assistant has"),
        ({"messages": [{**USER, "thinking": "x"}]}, "[0].thinking: only an assistant has it, not"),
        (
            {"messages": [USER, ANSWER], "tools": "[3]"},
            "field 'tools'[0]: expected an object, found a number",
        ),
    ],
)
def test_the_error_of_a_bad_record_is_one_line_with_place_and_field(fields, words):
    with pytest.raises(UserError) as raised:
        parse_record(fields, "data.jsonl:7")
    message = str(raised.value)
    assert message.startswith("data.jsonl:7: ") and words in message and "\n" not in message


def answered(fields, **options):
    return parse_record(fields, "f:1", **options).messages


SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
Q, A = Message("user", "q"), Message("assistant", "a")
S = Message("system", "s")


@pytest.mark.parametrize(
    ("fields", "messages", "is_pair"),
    [
        ({"messages": [USER, ANSWER]}, (Q, A), False),
        ({"conversations": SHAREGPT}, (Q, A), False),
        ({"conversation": [USER, ANSWER]}, (Q, A), False),
        ({"prompt": "q", "completion": "a"}, (Q, A), True),
        ({"prompt": [USER], "completion": [ANSWER]}, (Q, A), False),
        ({"prompt": [USER], "completion": "a"}, (Q, A), False),
        ({"prompt": "q", "completion": [ANSWER]}, (Q, A), False),
        ({"instruction": "q", "output": "a"}, (Q, A), True),
        ({"instruction": "q", "input": None, "output": "a"}, (Q, A), True),
        ({"instruction": "q", "input": "", "output": "a"}, (Q, A), True),
        ({"instruction": "q", "input": "x", "output": "a"}, (Message("user", "q\n\nx"), A), True),
        ({"inputs": b"q", "targets": "a"}, (Q, A), True),
        ({"text": "t"}, (Message("text", "t"),), False),
        ({"messages": [USER, ANSWER], "text": "t"}, (Q, A), False),
        ({"messages": [USER, ANSWER], "system": "s"}, (S, Q, A), False),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "s"}, (S, Q, A), False),
        ({"inputs": "q", "targets": "a", "system_prompt": "s"}, (S, Q, A), False),
        ({"instruction": "q", "output": "a", "history": [["q", "a"]]}, (Q, A, Q, A), False),
        (
            {"instruction": "q", "output": "a", "history": '[["q", "a"]]', "system": "s"},
            (S, Q, A, Q, A),
            False,
        ),
        ({"inputs": "q", "targets": "a", "system": None, "history": []}, (Q, A), True),
    ],
)  # fmt: skip
def test_the_shapes_of_rows(fields, messages, is_pair):
    record = parse_record(fields, "f:1")
    assert record.messages == messages and record.text_to_text == is_pair
    assert set(record.unread) <= {"text"}


def test_only_the_completion_of_a_conversation_is_trained():
    messages = answered({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]})
    assert [m.weight for m in messages] == [None, 0, None, None]


@pytest.mark.parametrize(
    ("schema", "fields", "first"),
    [
        ("text", {"messages": [USER, ANSWER], "text": "t"}, "t"),
        ("inputs_targets", {"messages": [USER, ANSWER], "inputs": "i", "targets": "t"}, "i"),
        ("messages", {"messages": [USER, ANSWER], "inputs": "i", "targets": "t"}, "q"),
    ],
)
def test_a_row_of_two_shapes_is_read_as_the_schema_says(schema, fields, first):
    record = parse_record(fields, "f:1", options=RowOptions(schema))
    assert record.messages[0].content == first
    assert set(record.unread) == fields.keys() - set(BY_NAME[schema].keys)
    if "text" not in fields:
        with pytest.raises(
            UserError, match="fits 'messages' and 'inputs_targets'; set data.schema"
        ):
            parse_record(fields, "f:1")


def test_every_schema_has_a_shape():
    assert SCHEMAS == ("auto", *BY_NAME)


THOUGHT = Message("assistant", "a", reasoning_content="t")
PARTS = [{"type": "text", "text": "a"}, {"type": "output_text", "text": "b", "x": 1}, "c"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"from": "chatgpt", "value": "a"}, A),
        ({"role": "model", "content": b"a"}, A),
        ({"role": "assistant", "content": PARTS}, Message("assistant", "abc")),
        ({"role": "assistant", "content": []}, Message("assistant", "")),
        (
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, *PARTS[:1]]},
            THOUGHT,
        ),
        ({**ANSWER, "thinking": "t", "reasoning": "t"}, THOUGHT),
        ({"role": "developer", "content": "d"}, Message("system", "d", role_name="developer")),
        ({"role": "environment", "content": "e"}, Message("tool", "e", role_name="environment")),
        ({"role": "ipython", "content": "e"}, Message("tool", "e", role_name="ipython")),
        ({"from": "function_response", "value": "e"}, Message("tool", "e")),
        ({**SYSTEM, "functions": "[]"}, Message("system", "s", functions="[]")),
    ],
)  # fmt: skip
def test_messages_of_other_systems(given, expected):
    [message] = answered({"messages": [given]})
    assert message == expected


CALLED = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


@pytest.mark.parametrize(
    "given",
    [
        {"tool_calls": [CALLED]},
        {"tool_calls": json.dumps([CALLED])},
        {"tool_calls": [{"name": "f", "arguments": {"x": 1}}]},
        {"tool_calls": [{"name": "f", "parameters": {"x": 1}}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": '{"x": 1}'}}]},
        {"tool_calls": CALLED},
        {"function_call": {"name": "f", "arguments": '{"x": 1}'}},
    ],
)
def test_calls_in_all_forms(given):
    [message] = answered({"messages": [{"role": "assistant", **given}]})
    assert message.tool_calls == (CALLED,) and message.content == ""


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('f(x=1)', {"x": 1}),
        ('f(x="a, b", y=[{"k": true}], z=null)', {"x": "a, b", "y": [{"k": True}], "z": None}),
        ('{"name": "f", "arguments": {"x": 1}}', {"x": 1}),
        ('f()', {}),
    ],
)  # fmt: skip
def test_dolcis_calls_are_a_text(text, arguments):
    [call] = parse_calls_text(text, "f:1")
    assert call["function"] == {"name": "f", "arguments": arguments}
    two = parse_calls_text("a.b(x=1)\nc(y=2)", "f:1")
    assert [call["function"]["name"] for call in two] == ["a.b", "c"]


@pytest.mark.parametrize(
    "text", ["f(1)", "f", "f(x=g())", "x = 1", "f(**a)", "f(x=b'')", "f(x", "(" * 999]
)
def test_a_text_that_is_no_call_is_refused(text):
    with pytest.raises(UserError, match="^f:1: expected calls in JSON, or such as 'f\\(x=1\\)'"):
        parse_calls_text(text, "f:1")


TOOL_F = {"type": "function", "function": {"name": "f", "description": "d"}}


@pytest.mark.parametrize(
    "tools",
    [
        [TOOL_F],
        json.dumps([TOOL_F]),
        [json.dumps(TOOL_F)],
        [{"name": "f", "description": "d", "parameters": None}],
        [{"type": "function", "name": "f", "description": "d"}],
    ],
)
@pytest.mark.parametrize("field", ["tools", "functions"])
def test_tools_in_all_forms(tools, field):
    assert parse_record({"messages": [USER, ANSWER], field: tools}, "f:1").tools == (TOOL_F,)
    listed = {"messages": [{**SYSTEM, "tools": tools}, USER, ANSWER]}
    assert parse_record(listed, "f:1").tools == (TOOL_F,)


@pytest.mark.parametrize(
    ("switches", "weight"),
    [
        ({}, None),
        ({"weight": None, "train": None, "loss": None}, None),
        ({"weight": 0.5}, 0.5),
        ({"weight": 0}, 0),
        ({"loss_weight": 2}, 2),
        ({"loss_scale": 0}, 0),
        ({"loss": False}, 0),
        ({"train": False}, 0),
        ({"training": False}, 0),
        ({"trainable": False}, 0),
        ({"train": True}, 1),
        ({"train": True, "weight": 0.5}, 0.5),
        ({"training": False, "weight": 1}, 0),
    ],
)
def test_masking_switches_of_other_systems(switches, weight):
    _, answer = answered({"messages": [USER, {**ANSWER, **switches}]})
    assert answer.weight == weight
    # Beside the conversation they are for all of it.
    whole = 1.0 if weight is None else weight
    assert parse_record({"messages": [USER, ANSWER], **switches}, "f:1").weight == whole
    assert parse_record({"inputs": "q", "targets": "a", **switches}, "f:1").weight == whole


def test_the_weights_of_a_row_and_a_message_multiply():
    messages = [USER, {**ANSWER, "weight": 0.5}, USER, ANSWER]
    record = parse_record({"messages": messages, "weight": 2}, "f:1")
    assert message_weights(record, Policy()) == [0, 1.0, 0, 2.0]
    asking = Policy(train_roles=("user", "assistant"))
    assert message_weights(record, asking) == [2.0, 1.0, 2.0, 2.0]


def test_a_weight_of_a_role_that_is_not_trained_is_refused():
    record = parse_record({"messages": [{**USER, "train": True}, ANSWER]}, "f:1")
    with pytest.raises(UserError, match=r"f:1: messages\[0\]: has the loss weight 1, but format"):
        message_weights(record, Policy())
    assert message_weights(record, Policy(train_roles=("user",))) == [1.0, 0]
    record = parse_record({"messages": [{**USER, "train": False}, ANSWER]}, "f:1")
    assert message_weights(record, Policy(train_roles=("user", "assistant"))) == [0, 1.0]


def test_ranges_of_axolotl_end_with_their_last_character():
    detail = [
        {"begin_offset": 0, "end_offset": 4, "train": False},
        {"begin_offset": 6, "end_offset": 99, "train": True},
    ]
    answer = {"role": "assistant", "content": "Hello world", "train_detail": detail}
    _, message = answered({"messages": [USER, answer]})
    assert message.ranges == (Range(0, 5, False), Range(6, 11, True))


def test_options_of_the_template_are_those_of_the_row():
    kwargs = {"enable_thinking": False, "custom_instructions": None, "xml_tools": []}
    for value in (kwargs, json.dumps(kwargs)):
        record = parse_record({"messages": [USER, ANSWER], "chat_template_kwargs": value}, "f:1")
        assert record.template_options == {"enable_thinking": False, "xml_tools": []}


def test_what_nothing_reads_is_named_and_what_is_empty_is_not():
    call = {"function": {"name": "f", "arguments": {}, "extra": 1}, "index": 0}
    messages = [
        {**USER, "id": 7, "images": [], "audio": None},
        {"role": "assistant", "content": [{"type": "text", "text": "a", "cache_control": {}}]},
        USER,
        {"role": "assistant", "tool_calls": [call], "annotations": [1], "refusal": ""},
    ]
    row = {"messages": messages, "source": "web", "lang": "", "score": 0.0, "tools": None}
    assert parse_record(row, "f:1").unread == (
        "score",
        "source",
        "messages[].annotations",
        "messages[].id",
        "messages[].tool_calls[].function.extra",
        "messages[].tool_calls[].index",
    )


def test_fields_can_be_ignored_although_their_names_mean_something():
    row = {
        "messages": [USER, {**ANSWER, "weight": "heavy", "mask": [1]}],
        "system": 7,
        "loss": "low",
    }
    ignored = frozenset(("weight", "mask", "system", "loss"))
    record = parse_record(row, "f:1", options=RowOptions(ignored=ignored))
    assert record.messages == (Q, A)
    assert set(record.unread) == {"system", "loss"}


HUGE = [{"name": "f", "arguments": '{"x": 1e400}'}]
TWICE = [{"name": "f", "arguments": '{"x": 1, "x": 2}'}]
LONG = [{"name": "f", "arguments": '{"x": ' + "1" * 5000 + "}"}]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"weight": 1e308}, "messages[1].weight: expected a number from 0 to 1,000"),
        ({"weight": 10**400}, "messages[1].weight: expected a number from 0 to 1,000"),
        ({"weight": 1e-30}, "messages[1].weight: expected a number from 0 to 1,000"),
        ({"train": "false"}, "messages[1].train: expected a number from 0 to 1,000"),
        ({"loss_scale": "last_round"}, "messages[1].loss_scale: expected a number"),
        ({"mask": [0, 1]}, "messages[1].mask: expected one of 'weight', 'loss_weight'"),
        ({"loss_mask": True}, "name the field in data.ignore_fields"),
        ({"train_detail": {"train": False}}, "train_detail: expected a list of objects"),
        ({"train_detail": [{"begin_offset": 0}]}, "train_detail[0]: expected whole numbers and"),
        (
            {"train_detail": [{"begin_offset": 1, "end_offset": 1, "train": True}]},
            "train_detail[0]: expected a range of the content's 1 characters, found 1 to 1",
        ),
        ({"content": [{"type": "image_url"}]}, "content[0]: expected a part of type 'text' or"),
        ({"content": [{"type": "text", "text": None}]}, "content[0].text: expected a text"),
        ({"content": [{"type": "text", "text": "a", "train": False}]}, "no weight of a part's own"),
        ({"content": 7}, "content: expected a text or a list of parts, found a number"),
        ({"thinking": "t", "reasoning": "u"}, "expected one of 'thinking', 'reasoning'; found"),
        ({"tool_calls": HUGE}, "arguments: the number 1e400 is too large"),
        ({"tool_calls": TWICE}, "arguments: key 'x' occurs twice"),
        ({"tool_calls": LONG}, "arguments: a number has more than 4,300 digits"),
        (
            {"tool_calls": [{"name": "f", "arguments": {"x": float("inf")}}]},
            "expected finite numbers, found inf",
        ),
        ({"tool_calls": [{"name": "f", "arguments": [1]}]}, "arguments: expected an object, found"),
        ({"role": "narrator"}, "expected one of system, user, assistant, tool"),
    ],
)
def test_what_a_message_says_in_a_form_that_is_not_understood_is_an_error(answer, words):
    with pytest.raises(UserError) as raised:
        parse_record({"messages": [USER, ANSWER | answer]}, "data.jsonl:7")
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"system": ["s"]}, "field 'system': expected a text, found a list"),
        ({"system": "other"}, "field 'system': the row has another system text, too"),
        ({"history": "q"}, "field 'history': column 1"),
        ({"history": [["q"]]}, "history[0]: expected a question and its answer, found 1"),
        ({"history": [["q", None]]}, "history[0]: expected a text, found null"),
        ({"history": [{"role": "user"}]}, "history[0]: expected a question and its answer"),
        ({"tools": "f"}, "field 'tools': column 1"),
        ({"tools": {"f": 1}}, "field 'tools': expected a list of tools, found an object"),
        ({"tools": [7]}, "field 'tools'[0]: expected an object"),
        ({"chat_template_kwargs": [1]}, "field 'chat_template_kwargs': expected an object of opt"),
        ({"chat_template_kwargs": {"messages": 1}}, "'messages' is no option of a template"),
        ({"chat_template_kwargs": {"a b": 1}}, "'a b' is no option of a template"),
        ({"weight": "high"}, "data.jsonl:7: row.weight: expected a number"),
        ({"mask": [1]}, "data.jsonl:7: row.mask: expected one of"),
        ({"choices": ["b"]}, "field 'choices': expected the answer 'a' or a reference among"),
        (
            {"choices": ["a"], "messages": [USER, ANSWER, USER, ANSWER]},
            "field 'choices': expected one answer, at the end; found 2",
        ),
    ],
)
def test_what_a_row_says_in_a_form_that_is_not_understood_is_an_error(more, words):
    with pytest.raises(UserError) as raised:
        parse_record({"messages": [SYSTEM, USER, ANSWER], **more}, "data.jsonl:7")
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_choices_and_references_belong_to_a_pair():
    row = {"inputs": "q", "targets": "a", "choices": ["a", "b"], "references": '["c"]'}
    record = parse_record(row, "f:1")
    assert record.choices == ("a", "b") and record.references == ("c",) and not record.unread
    with pytest.raises(UserError, match="'choices': expected the answer 'a' or a reference"):
        parse_record({**row, "choices": ["x", "y"]}, "f:1")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q"},
        {"prompt": [USER]},
        {"instruction": "q"},
        {"conversations": [{"from": "human", "value": "q"}]},
        {"messages": [USER, ANSWER], "prompt": "another"},
        {"prompt": "q", "completion": None},
    ],
)
def test_every_shape_can_be_a_prompt(row):
    assert answered(row, prompt_only=True) == (Q,)


def test_a_plain_text_is_no_prompt():
    with pytest.raises(UserError, match="f:1: a row with 'text' alone has no prompt to answer"):
        parse_record({"text": "t"}, "f:1", prompt_only=True)
