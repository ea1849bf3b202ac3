"""Templates without `{% generation %}`: by hand, and against `transformers`."""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.text.dropped import TEMPLATE_UNSTABLE, Dropped
from ift_jax.text.records import Message, Record
from ift_jax.text.rows.parse_record import parse_record
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates.model_templates import FORGETFUL, MODEL_TEMPLATES, ONE_LINE
from tests.text.conversations import conversations
from tests.text.formatters import chat_formatter, shown
from tests.text.shapes import CHAT, SHAPES
from tests.text.small_tokenizers import CHATML


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
def test_texts_and_trained_parts_by_hand(name, expected):
    formatter = chat_formatter(MODEL_TEMPLATES[name])
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == expected


@pytest.mark.parametrize("style", tok.STYLES)
@pytest.mark.parametrize("name", MODEL_TEMPLATES)
def test_ids_are_those_of_transformers(name, style):
    pytest.importorskip("transformers")
    formatter = chat_formatter(
        MODEL_TEMPLATES[name], style, template_options=('date_string="1 Mai"',)
    )
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


def test_a_template_that_drops_thinking_gives_one_example_for_each_turn():
    formatter = chat_formatter(FORGETFUL)
    first, second = formatter.encode(parse_record(SHAPES["thinking in the text"], "x"))
    start = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert shown(formatter, first) == start + "«<think>\nHm.\n</think>\n\nSo.<|im_end|>»\n"
    assert shown(formatter, second) == (
        start + "So.<|im_end|>\n<|im_start|>user\nReally?<|im_end|>\n<|im_start|>assistant\n"
        "«Yes<|im_end|>»\n"
    )
    record = parse_record({"messages": CHAT}, "x")
    assert len(formatter.encode(record)) == 1  # These answers hold no thinking.
    last = chat_formatter(FORGETFUL, train_on="last")
    (only,) = last.encode(parse_record(SHAPES["thinking in the text"], "x"))
    assert only.tokens.tolist() == second.tokens.tolist()


def test_a_template_whose_answer_does_not_follow_its_prompt_is_refused():
    with pytest.raises(UserError, match="format.template = .* expected that an answer follows"):
        chat_formatter(ONE_LINE.replace("system' %}{{ '", "system' %}{{ messages | length ~ '"))
    # The second answer does not follow its prompt.
    source = ONE_LINE.replace(
        "{{'<|im_start|>'", "{{ '!' if messages | length == 3 }}{{'<|im_start|>'"
    )
    formatter = chat_formatter(source)
    assert len(formatter.encode(parse_record({"messages": CHAT[:2]}, "x"))) == 1
    made = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert made == TEMPLATE_UNSTABLE
    tagged = (
        "{% for m in messages %}{{ m.role }}{% generation %}{{ m.content ~ eos_token }}"
        "{% endgeneration %}{% endfor %}"
    )
    with pytest.raises(UserError, match="begins where the text that prompts it ends"):
        chat_formatter(
            tagged
        )  # It also tags the user's turns, and its prompt lacks the answer's header.


@pytest.mark.parametrize("name", MODEL_TEMPLATES)
def test_prompts_are_prefixes_and_weights_change_no_id(name):
    formatter = chat_formatter(MODEL_TEMPLATES[name])
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


@pytest.mark.parametrize("field", ["tools", "tool_calls", "reasoning_content"])
def test_a_field_that_the_template_would_leave_out_is_refused(field):
    shape = SHAPES["thinking" if field == "reasoning_content" else "tools"]
    if field == "tools":
        shape = {"messages": CHAT, "tools": shape["tools"]}
    with pytest.raises(UserError, match=f"x: template '.*' does not write .*{field}"):
        chat_formatter(ONE_LINE).encode(parse_record(shape, "x"))
