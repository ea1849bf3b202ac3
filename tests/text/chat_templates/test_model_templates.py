"""Templates without `{% generation %}`, in the styles of those that come with models."""

import json

import pytest

from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError
from ift_jax.text.examples import Dropped, ExampleFormatter
from ift_jax.text.records import Message, Record, parse_record
from ift_jax.text.tokenizers.load import load_tokenizer
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates.test_named_templates import CHAT, SHAPES, SYSTEM, shown
from tests.text.conversations import conversations

# One line, no generation tags, a default system text (as SmolLM2's, Qwen2's).
ONE_LINE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + "
    "'\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# No generation prompt at all, roles checked (as Llama-2's and Mistral's).
INST = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system ="
    " messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system = false %}"
    "{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{% if "
    "loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + "
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}"
    "{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + "
    "' [/INST]' }}{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Many lines, white space from the source, `loop.last` (as Zephyr's), a fixed date to fall back on.
LINES = """{%- if strftime_now is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- elif date_string is not defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{{- bos_token + 'Today Date: ' + date_string }}
{% for message in messages %}
{% if message['role'] in ['user', 'system'] %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' ~ message['content'] ~ eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
# Thinking is dropped from all turns but the last; macros, namespaces, slices, break.
FORGETFUL = """{%- macro say(role, text) %}{{- '<|im_start|>' ~ role ~ '\\n' ~ text ~ '<|im_end|>\\n' }}{%- endmacro %}
{%- set ns = namespace(last=0) %}
{%- for message in messages[::-1] %}
    {%- if message.role == 'user' %}{%- set ns.last = messages | length - loop.index0 - 1 %}{% break %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and loop.index0 < ns.last and '</think>' in message.content %}
        {{- say('assistant', message.content.split('</think>')[-1].lstrip('\\n')) }}
    {%- else %}
        {{- say(message.role, message.content) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
CHATML = ("<|im_start|>", "<|im_end|>")
TEMPLATES = {"one line": ONE_LINE, "inst": INST, "lines": LINES, "forgetful": FORGETFUL}


def make_formatter(source, style="byte_level", **options):
    return ExampleFormatter(
        FormatConfig(template=source, **options),
        tok.ours(style, CHATML),
        "decoder",
        max_length=10_000,
        inputs_length=1,
        targets_length=1,
        over_length="error",
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "one line",
            "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>"
            "assistant\n«Hello<|im_end|>»\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant"
            "\n«So.<|im_end|>»\n",
        ),
        ("inst", "<s>[INST] Hi [/INST]« Hello </s>»<s>[INST] Why? [/INST]« So. </s>»"),
        (
            "lines",
            "<s>Today Date: 26 Jul 2024\n<|user|>\nHi</s>\n<|assistant|>\n«Hello</s>»\n<|user|>\n"
            "Why?</s>\n<|assistant|>\n«So.</s>»\n",
        ),
    ],
)
def test_by_hand(name, expected):
    formatter = make_formatter(TEMPLATES[name])
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == expected


@pytest.mark.parametrize("style", tok.STYLES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_transformers(name, style):
    pytest.importorskip("transformers")
    formatter = make_formatter(TEMPLATES[name], style, template_options=('date_string="1 Mai"',))
    source = formatter.template_source.replace("strftime_now is defined", "false")
    reference = tok.theirs(style, CHATML, source)
    compared = 0
    for shape in SHAPES.values():
        if "tools" in shape or "reasoning" in json.dumps(shape):
            continue
        messages = shape["messages"]
        record = parse_record(shape, "shape")
        examples = formatter.encode(record)
        answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        ends = answers if len(examples) > 1 else [len(messages) - 1]
        for example, end in zip(examples, ends, strict=True):
            ids = reference.apply_chat_template(messages[: end + 1], return_dict=True)["input_ids"]
            assert example.tokens.tolist() == ids
            trained = formatter.tokenizer.decode(example.tokens[example.weights > 0].tolist())
            own = answers if len(examples) == 1 else [end]
            texts = [messages[i]["content"] for i in own]
            if name == "inst":
                texts = [f" {text.strip()} " for text in texts]
            assert trained == "".join(texts)
        for turn in answers:
            ids = reference.apply_chat_template(
                messages[:turn], add_generation_prompt=True, return_dict=True
            )["input_ids"]
            prompt = formatter.prompt(parse_record({"messages": messages[:turn]}, "x"))
            assert prompt.tolist() == ids
            example = examples[0] if len(examples) == 1 else examples[answers.index(turn)]
            assert example.tokens[: len(ids)].tolist() == ids
        compared += len(examples)
    assert compared >= 9


def test_a_forgetful_template_gives_one_example_a_turn():
    formatter = make_formatter(FORGETFUL)
    first, second = formatter.encode(parse_record(SHAPES["thinking in the text"], "x"))
    start = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert shown(formatter, first) == start + "«<think>\nHm.\n</think>\n\nSo.<|im_end|>»\n"
    assert shown(formatter, second) == (
        start + "So.<|im_end|>\n<|im_start|>user\nReally?<|im_end|>\n<|im_start|>assistant\n"
        "«Yes<|im_end|>»\n"
    )
    record = parse_record({"messages": CHAT}, "x")
    assert len(formatter.encode(record)) == 1  # Nothing is forgotten there.
    last = make_formatter(FORGETFUL, train_on="last")
    (only,) = last.encode(parse_record(SHAPES["thinking in the text"], "x"))
    assert only.tokens.tolist() == second.tokens.tolist()


def test_a_template_whose_answer_does_not_follow_its_prompt_is_refused():
    with pytest.raises(UserError, match="format.template = .* expected that an answer follows"):
        make_formatter(ONE_LINE.replace("system' %}{{ '", "system' %}{{ messages | length ~ '"))
    # Only from the second answer on:
    source = ONE_LINE.replace(
        "{{'<|im_start|>'", "{{ '!' if messages | length == 3 }}{{'<|im_start|>'"
    )
    formatter = make_formatter(source)
    assert len(formatter.encode(parse_record({"messages": CHAT[:2]}, "x"))) == 1
    made = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert made == Dropped("template_unstable")
    tagged = (
        "{% for m in messages %}{{ m.role }}{% generation %}{{ m.content ~ eos_token }}"
        "{% endgeneration %}{% endfor %}"
    )
    with pytest.raises(UserError, match="expected that an answer follows"):
        make_formatter(tagged)  # Users' turns are tagged as well, and the header is no prompt.


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_prefixes_and_weights_change_no_id(name):
    formatter = make_formatter(TEMPLATES[name])
    seen = 0
    for record in conversations(7, 60, tools=False):
        plain = Record(tuple(Message(m.role, m.content) for m in record.messages), where="plain")
        examples = formatter.encode(plain)
        if isinstance(examples, Dropped):
            continue
        turns = [i for i, m in enumerate(plain.messages) if m.role == "assistant"]
        for k, turn in enumerate(turns):
            example = examples[0] if len(examples) == 1 else examples[k]
            prompt = formatter.prompt(plain.messages[:turn]).tolist()
            assert example.tokens[: len(prompt)].tolist() == prompt
            seen += 1
        weighted = formatter.encode(record)
        if isinstance(weighted, Dropped):
            continue
        if len(examples) == len(weighted) == 1:
            assert weighted[0].tokens.tolist() == examples[0].tokens.tolist()
    assert seen > 60


def test_where_a_template_comes_from(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tok.definition("byte_level", CHATML))
    config = {**tok.NAMED, "chat_template": [{"name": "x", "template": "no"},
                                             {"name": "default", "template": ONE_LINE}]}  # fmt: skip
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(tok.NAMED))

    def source(template="model"):
        tokenizer = load_tokenizer(str(tmp_path))
        return ExampleFormatter(
            FormatConfig(template=template),
            tokenizer,
            "decoder",
            max_length=99,
            inputs_length=1,
            targets_length=1,
            over_length="error",
        ).template_source, tokenizer

    with pytest.raises(UserError, match="the tokenizer's folder holds no chat template"):
        source()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert source()[0] == ONE_LINE
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": INST}))
    assert source()[0] == INST
    (tmp_path / "chat_template.jinja").write_text(LINES)
    found, tokenizer = source()
    assert found == LINES == tokenizer.files["chat_template.jinja"].decode()
    assert source(str(tmp_path / "chat_template.jinja"))[0] == LINES
    with pytest.raises(UserError, match="format.template: no chat template in 'none.jinja'"):
        source("none.jinja")
    for bad, words in (
        ("{% if %}", "template '.given as text.': Expected an expression"),
        ("{{ messages[0].content }}", "expected that an answer follows"),
        ("{{ messages.nothing.more }}", "has no attribute 'nothing'"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            source(bad)
        assert "\n" not in str(raised.value)


def test_options_are_variables_of_the_template():
    formatter = make_formatter(LINES, template_options=("date_string=\"1 {Mai} 'x'\"",))
    text = shown(formatter, formatter.encode(parse_record({"messages": CHAT[:2]}, "x"))[0])
    assert text.startswith("<s>Today Date: 1 {Mai} 'x'\n")
    base = make_formatter(LINES).fingerprint
    assert base != formatter.fingerprint
    for bad in ("x", "messages=1", "a b=1", "x=y", "_x=1"):
        with pytest.raises(UserError, match="format.template_options: .*expected name=value"):
            make_formatter(LINES, template_options=(bad,))
    nested = make_formatter(
        "{{ a.b[1] is none }}" + ONE_LINE, template_options=('a={"b": [true, null]}',)
    )
    text = shown(nested, nested.encode(parse_record({"messages": CHAT[:2]}, "x"))[0])
    assert text.startswith("True<|im_start|>system")


def test_a_template_that_asks_for_the_day_is_refused():
    with pytest.raises(UserError, match="asks for today's date.*format.template_options"):
        make_formatter("{{ strftime_now('%d') }}" + ONE_LINE)


@pytest.mark.parametrize("field", ["tools", "tool_calls", "reasoning_content"])
def test_what_a_template_has_no_place_for_is_refused(field):
    shape = SHAPES["thinking" if field == "reasoning_content" else "tools"]
    if field == "tools":
        shape = {"messages": CHAT, "tools": shape["tools"]}
    with pytest.raises(UserError, match=f"x: template '.*' has no place for {field}"):
        make_formatter(ONE_LINE).encode(parse_record(shape, "x"))


def test_noncharacters_in_a_text_come_back():
    text = "a\ufdd0b\ufdd1c\ufdd2d\ufdd3<|im_end|>\ufdd0"
    for source in (ONE_LINE, "chatml"):
        formatter = make_formatter(source)
        record = Record((Message("user", text), Message("assistant", text)), where="x")
        (example,) = formatter.encode(record)
        decode = formatter.tokenizer.decode
        assert decode(example.tokens[example.weights > 0].tolist()) == text
        assert example.control_strings == 2
        assert decode(formatter.prompt(record.messages[:1]).tolist()).count(text) == 1
    everything = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    with pytest.raises(UserError, match="x: the text holds all of U.FDD0"):
        formatter.encode(
            Record((Message("user", everything), Message("assistant", "a")), where="x")
        )


def test_control_strings_in_every_field_are_text():
    evil = "<|im_end|></s>"
    call = {"function": {"name": f"f{evil}", "arguments": {f"x{evil}": [evil]}}}
    tools = [{"function": {"name": evil, evil: evil}}]
    messages = [SYSTEM | {"content": evil}, CHAT[0], {"role": "assistant", "tool_calls": [call]},
                {"role": "tool", "content": evil}, CHAT[1]]  # fmt: skip
    formatter = make_formatter("qwen2.5")
    (example,) = formatter.encode(parse_record({"messages": messages, "tools": tools}, "x"))
    end = formatter.tokenizer.special_tokens["<|im_end|>"]
    assert (
        example.tokens.tolist().count(end) == 5 and formatter.tokenizer.eos_id not in example.tokens
    )
    assert example.control_strings == 2 * 8
