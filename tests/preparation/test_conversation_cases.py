"""The right value of each row of the shared cases: conversations as they are written today.

Rows go the way of a run: a file, its reader, the chat template, and the tokenizer.
"""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.sources.row_files_source import RowFilesSource
from ift_jax.text.chat_templates.registry import NAMES
from ift_jax.text.dropped import Dropped
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.turn_rules import AS_GIVEN, TurnRules
from tests.shared_data import SHARED
from tests.text import chat_tokenizers as chat
from tests.text.formatters import make_formatter, shown

CASES = SHARED / "cases" / "conversations"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are missing")


def formatter(template="chatml", rules=AS_GIVEN, **options):
    tokenizer = chat.ours("byte_level", (*NAMES["chatml"], *NAMES["qwen3"]))
    return make_formatter(tokenizer, template=template, turn_rules=rules, **options)


def records(name):
    file = name if "." in name else f"{name}.jsonl"
    return list(RowFilesSource({"train": str(CASES / file)}).parsed("train", name))


def texts(name, made=None, **options):
    """What each row of a case becomes: its text with the trained part in angles, or why nothing."""
    how = formatter(**options) if made is None else made
    result = []
    for record in records(name):
        examples = how.encode(record)
        if isinstance(examples, Dropped):
            result.append(examples.reason)
        else:
            result.append([shown(how, example) for example in examples])
    return result


def turn(role, text):
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def trained(text):
    return f"<|im_start|>assistant\n«{text}<|im_end|>»\n"


HELLO = turn("user", "Hi") + trained("Hello.")


@pytest.mark.parametrize("name", ["train_false", "loss_false", "training_false"])
def test_a_turn_that_another_system_would_not_train_is_context(name):
    bad = turn("user", "Hi") + turn("assistant", "bad")
    assert texts(name) == [[bad + turn("user", "B") + trained("good")]]


@pytest.mark.parametrize("name", ["sharegpt", "parts", "trl_conv_prompt_completion"])
def test_the_shapes_of_today_are_read(name):
    assert texts(name) == [[HELLO]]


def test_an_array_is_read():
    assert texts("array.json") == [[HELLO]] * 2


def test_a_developer_is_one_where_the_template_knows_one_and_else_the_system():
    [record] = records("developer")
    assert texts("developer") == [[turn("system", "Be brief") + HELLO]]
    [example] = formatter().encode(record)
    assert example.unwritten == ("role 'developer' (written as 'system')",)
    source = "{{- 'developer' if false }}" + (formatter().template_source)
    knows = formatter(source)
    assert texts("developer", knows) == [[turn("developer", "Be brief") + HELLO]]
    [example] = knows.encode(record)
    assert example.unwritten == ()


def test_alpaca_with_system_and_history():
    before = turn("system", "You are a clock.") + turn("user", "Hi")
    now = turn("user", "Now?") + trained("Noon.")
    assert texts("alpaca_system_history") == [[before + trained("Hello") + now]]
    last = formatter(train_on="last")
    assert texts("alpaca_system_history", last) == [[before + turn("assistant", "Hello") + now]]


def test_a_null_input_is_an_empty_one():
    assert texts("alpaca_null_input") == [[turn("user", "Now?") + trained("Noon.")]]


def test_tools_as_json_give_the_ids_of_tools_as_a_list(tmp_path):
    row = json.loads((CASES / "tools_json_string.jsonl").read_text())
    row["tools"] = json.loads(row["tools"])
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps(row))
    [as_list] = RowFilesSource({"train": str(path)}).parsed("train", "t")
    [as_text] = records("tools_json_string")
    how = formatter("qwen3")
    ids = [[e.tokens.tolist() for e in how.encode(record)] for record in (as_list, as_text)]
    assert ids[0] == ids[1] and '"name": "f"' in shown(how, how.encode(as_text)[0])


def test_a_call_needs_no_content():
    [[first, second]] = texts("tool_calls_no_content_key", template="qwen3")
    call = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>»\n'
    assert first == turn("user", "Q") + "<|im_start|>assistant\n«<think>\n\n</think>\n\n" + call
    assert "Seven.<|im_end|>»" in second


def test_nulls_are_absent():
    assert texts("nulls") == [[HELLO]]


@pytest.mark.parametrize(
    ("name", "reason", "rules", "text"),
    [
        ("assistant_first", "assistant_first", {"drop_leading_assistant": True}, HELLO),
        (
            "consecutive_user",
            "same_role_twice",
            {"merge_same_role": True},
            turn("user", "Hi\n\nThere") + trained("Hello."),
        ),
        (
            "consecutive_assistant",
            "same_role_twice",
            {"merge_same_role": True},
            turn("user", "Hi") + trained("Hel\n\nlo."),
        ),
        (
            "system_in_the_middle",
            "system_in_the_middle",
            {"any_turn_order": True},
            turn("user", "Hi")
            + trained("A")
            + turn("system", "Be brief")
            + turn("user", "B")
            + trained("C"),
        ),
    ],
)
def test_turns_in_a_bad_order_are_counted_and_an_option_takes_them(name, reason, rules, text):
    assert texts(name) == [reason]
    assert texts(name, rules=TurnRules(**rules)) == [[text]]


def test_a_thought_without_a_place_is_refused_by_name_or_counted():
    with pytest.raises(UserError) as raised:
        texts("thinking_nothink_template")
    assert f"{CASES / 'thinking_nothink_template.jsonl'}:1: template 'chatml' does not write" in (
        str(raised.value)
    )
    assert "messages[1].reasoning_content" in str(raised.value)
    assert "format.unwritten" in str(raised.value)
    assert texts("thinking_nothink_template", unwritten="drop") == ["unwritten"]
    how = formatter(unwritten="leave-out")
    assert texts("thinking_nothink_template", how) == [[HELLO]]
    [example] = how.encode(*records("thinking_nothink_template"))
    assert example.unwritten == ("reasoning_content",)


def test_white_space_is_kept_as_the_template_writes_it():
    blank, padded = texts("whitespace_content")
    # An answer of white space alone is trained as it is, with its stop token.
    assert blank == [turn("user", "  ") + trained("  ")]
    assert padded == [turn("user", "Hi\n") + trained("\n\nok  \n")]


def test_every_token_of_a_plain_text_is_trained():
    how = formatter()
    [record] = records("text_only")
    [example] = how.encode(record)
    text = json.loads((CASES / "text_only.jsonl").read_text())["text"]
    assert shown(how, example) == f"<s>«{text}»"
    assert example.weights.tolist() == [0.0] + [1.0] * (len(example.tokens) - 1)
    assert example.tokens[1] == how.tokenizer.special_tokens["<|im_start|>"]


def test_every_case_is_tested():
    with open(__file__, encoding="utf-8") as file:
        this = file.read()
    names = {path.name.removesuffix(".jsonl") for path in CASES.iterdir()}
    assert {name for name in names if f'"{name}"' not in this} == set()
    assert ExampleFormatter is type(formatter())
