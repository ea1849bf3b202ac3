"""What a chat template leaves out of a record is found, whatever it is."""

import pytest

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.registry import NAMES
from ift_jax.text.dropped import UNWRITTEN
from ift_jax.text.rows.parse_record import parse_record
from tests.text import chat_tokenizers as chat
from tests.text.formatters import make_formatter, shown
from tests.text.shapes import CALL, CALLED, CHAT, SHAPES, SYSTEM, TOOLS


def formatter(template, **options):
    tokenizer = chat.ours("byte_level", NAMES["qwen3"])
    return make_formatter(tokenizer, template=template, **options)


# Every field is written, in one way or another; `{skip}` leaves some out.
FULL = (
    (
        "{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
        "{%- for m in messages %}<|im_start|>{{ m.role }} {{ m.name }} {{ m.tool_call_id }}\n"
        "{%- generation %}{{ m.reasoning_content | default('') | trim }} {{ m.content | trim }}"
        "{% for c in m.tool_calls or [] %}{{ c.id }} {{ c.function | tojson }}{% endfor %}"
        "<|im_end|>"
        "{% endgeneration %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant  \n{% endif %}"
    )
    .replace("{%- generation %}", "{% if m.role == 'assistant' %}{% generation %}")
    .replace(
        "{% endgeneration %}",
        "{% endgeneration %}{% else %}{{ m.content }} {{ m.functions }}<|im_end|>{% endif %}",
    )
)
THOUGHT = [CHAT[0], {**CHAT[1], "reasoning_content": "Hm,\n  so."}]
OPTION = {"messages": CHAT, "chat_template_kwargs": {"a": 1}}
NAMED = [{**CHAT[0], "name": "Ann"}, CHAT[1]]
BESIDE = [CHAT[0], {**CALLED[1], "content": "Let me see."}, *CALLED[2:]]
DESCRIBED = [
    {
        "name": "f",
        "description": "First line.\n  Second line.",
        "parameters": {"properties": {"x": {"type": "number", "description": "how many"}}},
    }
]


@pytest.mark.parametrize(
    ("template", "row", "fields"),
    [
        (FULL, {"messages": [SYSTEM, *CHAT]}, []),
        (FULL, {"messages": THOUGHT}, []),
        (FULL, {"messages": NAMED}, []),
        (FULL, {"messages": BESIDE, "tools": TOOLS}, []),
        (FULL, {"messages": CHAT, "tools": DESCRIBED}, []),
        ("chatml", {"messages": THOUGHT}, ["messages[1].reasoning_content"]),
        ("chatml", {"messages": BESIDE}, ["messages[1].tool_calls"]),
        ("chatml", {"messages": CHAT, "tools": TOOLS}, ["tools"]),
        ("chatml", OPTION, ["chat_template_kwargs.a"]),
        (FULL.replace("m.content | trim", "1"), {"messages": CHAT[:2]}, ["messages[1].content"]),
        (
            FULL.replace("{{ m.content | trim }}", "{{ m.content if not m.tool_calls }}"),
            {"messages": BESIDE, "tools": TOOLS},
            ["messages[1].content"],
        ),
        (
            FULL.replace("m.reasoning_content |", "m.reasoning_content if m.tool_calls else '' |"),
            {"messages": THOUGHT},
            ["messages[1].reasoning_content"],
        ),
        (
            FULL.replace("c.function |", "c.function.name |"),
            {"messages": BESIDE, "tools": TOOLS},
            ["messages[1].tool_calls"],
        ),
        (
            FULL.replace("tool | tojson", "tool.function.name"),
            {"messages": CHAT, "tools": DESCRIBED},
            ["tools"],
        ),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_named(template, row, fields):
    how = formatter(template)
    record = parse_record(row, "rows.jsonl:3")
    if not fields:
        [example] = how.encode(record)
        assert example.unwritten == ()
        return
    with pytest.raises(UserError) as raised:
        how.encode(record)
    message = str(raised.value)
    assert message.startswith("rows.jsonl:3: template ") and "\n" not in message
    assert f" does not write {', '.join(fields)}; " in message
    assert formatter(template, unwritten="drop").encode(record) == UNWRITTEN
    [example] = formatter(template, unwritten="leave-out").encode(record)
    names = {field.rpartition("].")[2] for field in fields}
    assert names <= set(example.unwritten)


def test_identifiers_are_counted_and_never_refused():
    [example] = formatter("chatml").encode(parse_record({"messages": NAMED}, "x"))
    assert example.unwritten == ("name",)
    first, second = formatter("qwen3").encode(parse_record(SHAPES["tools"], "x"))
    assert first.unwritten == ("tool_call_id", "tool_calls[].id") and second.unwritten == ()


def test_the_thought_of_each_trained_turn_is_in_its_own_example():
    row = {"messages": [*THOUGHT, *CHAT[2:3], {**CHAT[3], "reasoning_content": "Well."}]}
    how = formatter("qwen3")
    first, second = how.encode(parse_record(row, "x"))
    assert "Hm,\n  so." in shown(how, first) and "Hm," not in shown(how, second)
    assert first.unwritten == ()
    # The template leaves out the thought of an earlier turn; if that is not trained, it is counted.
    [only] = formatter("qwen3", train_on="last").encode(parse_record(row, "x"))
    assert only.unwritten == ("reasoning_content",)
    in_text = parse_record(SHAPES["thinking in the text"], "x")
    assert [e.unwritten for e in how.encode(in_text)] == [(), ()]


def test_white_space_and_json_do_not_hide_a_text():
    call = {**CALL, "function": {"name": "f", "arguments": {"say": 'a "b"\n  c', "é": ["ü"]}}}
    messages = [CHAT[0], {"role": "assistant", "content": "  x\n y ", "tool_calls": [call]}]
    record = parse_record({"messages": messages, "tools": TOOLS}, "x")
    for template in (FULL, FULL.replace("c.function | tojson", "c.function | tojson(indent=2)")):
        [example] = formatter(template).encode(record)
        assert example.unwritten == ()
    ascii_only = FULL.replace("c.function | tojson", "c.function | tojson(ensure_ascii=true)")
    [example] = formatter(ascii_only).encode(record)
    assert example.unwritten == ()


def test_control_strings_that_a_user_typed_are_found():
    record = parse_record({"messages": [{"role": "user", "content": "<|im_end|> x"}, CHAT[1]]}, "x")
    for how in ("text", "control"):
        [example] = formatter("chatml", control_strings=how).encode(record)
        assert example.unwritten == ()


def test_a_prompt_and_an_encoders_input_are_checked_too():
    row = {"messages": [SYSTEM, *CHAT[:2]], "tools": TOOLS}
    prompt = parse_record(row, "p.jsonl:1", prompt_only=True)
    with pytest.raises(UserError, match="p.jsonl:1: template 'chatml' does not write tools"):
        formatter("chatml").prompt(prompt)
    assert formatter("chatml", unwritten="leave-out").prompt(prompt).size
    encoder = formatter("chatml", architecture="encoder_decoder")
    with pytest.raises(UserError, match="does not write tools"):
        encoder.encode(parse_record(row, "x"))


def test_options_of_a_row_reach_the_template():
    row = {"messages": CHAT[:2], "chat_template_kwargs": {"enable_thinking": False}}
    how = formatter("qwen3")
    with_thinking = how.prompt(parse_record({"messages": CHAT[:1]}, "x"))
    without = how.prompt(parse_record(row, "x", prompt_only=True))
    assert how.tokenizer.decode(without[len(with_thinking) :]) == "<think>\n\n</think>\n\n"


DOLCI = [
    {**SYSTEM, "functions": '[{"name": "f", "description": "d"}]'},
    CHAT[0],
    {"role": "assistant", "content": "", "function_calls": 'f(x="é")'},
    {"role": "environment", "content": "7"},
    {"role": "assistant", "content": "Seven."},
]
OLMO = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "{% if m.get('function_calls') %}{{ '<function_calls>' + "
    "m['function_calls'] + '</function_calls>' }}{% endif %}<|im_end|>{% endgeneration %}"
    "{% elif m['role'] == 'environment' %}{{ m['content'] + '<|im_end|>' }}{% else %}"
    "{{ m['content'] }}{% if m.get('functions') %}{{ ' <functions>' + m['functions'] + "
    "'</functions>' }}{% endif %}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_dolcis_fields_go_to_the_template_that_reads_them_and_are_tools_and_calls_elsewhere():
    record = parse_record({"messages": DOLCI}, "x")
    how = formatter(OLMO)
    [example] = how.encode(record)
    text = shown(how, example)
    assert '«<function_calls>f(x="é")</function_calls><|im_end|>»' in text
    assert "<functions>[{" in text and "<|im_start|>environment\n7" in text
    how = formatter("qwen3")
    first, second = how.encode(record)
    assert '{"name": "f", "arguments": {"x": "é"}}\n</tool_call><|im_end|>»' in shown(how, first)
    assert '{"type": "function", "function": {"name": "f", "description": "d"}}' in shown(
        how, first
    )
    assert "<tool_response>\n7\n</tool_response>" in shown(how, second)
    assert second.unwritten == () and "role 'environment' (written as 'tool')" in first.unwritten
