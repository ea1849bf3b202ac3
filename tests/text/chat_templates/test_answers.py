"""Where answers begin and end: what an author's tags say, and what shows without tags."""

import pytest

from ift_jax.errors import UserError
from ift_jax.text.rows.parse_record import parse_record
from tests.text import chat_tokenizers as tok
from tests.text.formatters import chat_formatter, make_formatter, shown
from tests.text.shapes import CALL, CHAT, RECORDS, rounds
from tests.text.small_tokenizers import CHATML

USER = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
EXPECTED = f"{USER.format('Hi')}«Hello<|im_end|>»\n{USER.format('Why?')}«So.<|im_end|>»\n"


def tagged(answer, prompt="<|im_start|>assistant\\n", header="<|im_start|>assistant\\n"):
    """A template whose author tags an answer in this way."""
    return (
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        + "{{ '" + header + "' }}" + answer
        + "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '" + prompt + "' }}{% endif %}"
    )  # fmt: skip


LAYOUTS = {
    "answer and stop": tagged(
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    ),
    "answer, stop and newline": tagged(
        "{% generation %}{{ m.content + '<|im_end|>\\n' }}{% endgeneration %}"
    ),
    "header, answer and stop": tagged(
        "{% generation %}{{ '<|im_start|>assistant\\n' + m.content + '<|im_end|>' }}"
        "{% endgeneration %}{{ '\\n' }}",
        header="",
    ),
    "in two blocks": tagged(
        "{% generation %}{{ m.content }}{% endgeneration %}"
        "{% generation %}{{ '<|im_end|>\\n' }}{% endgeneration %}"
        "{% generation %}{% endgeneration %}"
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tags_mark_the_same_answers_in_every_layout(layout):
    formatter = chat_formatter(LAYOUTS[layout])
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == EXPECTED
    (usual,) = chat_formatter(LAYOUTS["answer and stop"]).encode(
        parse_record({"messages": CHAT}, "x")
    )
    assert example.tokens.tolist() == usual.tokens.tolist()
    # Earlier answers have the same edges in a prompt as in training.
    spaced = parse_record({"messages": rounds("Hi", "\n  a", "Why?", "So.")}, "x")
    (example,) = formatter.encode(spaced)
    prompt = formatter.prompt(spaced.messages[:3]).tolist()
    assert example.tokens[: len(prompt)].tolist() == prompt


def test_faults_of_tags_are_said_in_true_words():
    for answer, words in (
        (
            "{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>\\n' }}",
            "{% endgeneration %} comes before the token '<|im_end|>' that stops an answer",
        ),
        (
            "{% generation %}{{ m.content + '<end>' }}{% endgeneration %}",
            "its stop token '<end>' is not one token of the tokenizer",
        ),
        (
            "{% generation %}{{ m.content }}{% endgeneration %}",
            "nothing stops it",
        ),
        (
            "{{ '> ' }}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}",
            "before {% generation %} it also writes '> '",
        ),
        (
            "{{ m.content + '<|im_end|>' }}{% if false %}{% generation %}{% endgeneration %}"
            "{% endif %}",
            "expected that it writes an answer inside of {% generation %}",
        ),
    ):
        with pytest.raises(UserError) as raised:
            chat_formatter(tagged(answer))
        assert words in str(raised.value) and "\n" not in str(raised.value)


PREFILLED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.reasoning_content %}{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}"
    "{% endif %}{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
SWITCHED = PREFILLED.replace(
    "<think>\\n' }}{% endif %}",
    "' }}{{ '<think>\\n\\n</think>\\n\\n' if enable_thinking is false else '<think>\\n' }}"
    "{% endif %}",
)


@pytest.mark.parametrize("source", [PREFILLED, SWITCHED], ids=["prefilled", "switched"])
def test_a_thought_that_the_prompt_opens_may_be_there_or_not(source):
    formatter = chat_formatter(source)
    (example,) = formatter.encode(parse_record(RECORDS["thinking"], "x"))
    assert shown(formatter, example) == (
        f"{USER.format('Hi')}<think>\n«Hm.\n</think>\n\nHello<|im_end|>»\n"
        f"{USER.format('Why?')}<think>\n«\nWell.\n\n</think>\n\nSo.<|im_end|>»\n"
    )
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == EXPECTED
    prompt = formatter.prompt(parse_record({"messages": CHAT[:1]}, "x"))
    text = formatter.tokenizer.decode(prompt, keep_special=True)
    assert text == f"{USER.format('Hi')}<think>\n"


def test_an_empty_thought_in_the_text_follows_the_prompt_that_says_so():
    formatter = chat_formatter(SWITCHED)
    answer = "<think>\n\n</think>\n\nHello"
    (example,) = formatter.encode(parse_record({"messages": rounds("Hi", answer)}, "x"))
    # The run's own prompt comes first: it opens a thought, and the answer closes it.
    assert shown(formatter, example) == (
        f"{USER.format('Hi')}<think>\n«\n</think>\n\nHello<|im_end|>»\n"
    )
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == EXPECTED
    off = chat_formatter(SWITCHED, template_options=("enable_thinking=false",))
    (example,) = off.encode(parse_record({"messages": rounds("Hi", answer)}, "x"))
    assert shown(off, example) == f"{USER.format('Hi')}{answer[:-5]}«Hello<|im_end|>»\n"


GLM = (
    "{{ tools | length if tools }}{% for m in messages %}"
    "{{ '<|' + ('observation' if m.role == 'tool' else m.role) + '|>\\n' }}"
    "{{ m.content }}{{ m.tool_calls[0].function | tojson if m.tool_calls }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
GLM_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")


def test_an_answer_without_a_stop_ends_in_the_token_of_the_next_turn():
    formatter = make_formatter(tok.ours("byte_level", GLM_TOKENS), template=GLM)
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == (
        "<|user|>\nHi<|assistant|>«\nHello<|user|>»\nWhy?<|assistant|>«\nSo.<|user|>»"
    )
    (example,) = formatter.encode(parse_record({"messages": CHAT[:2]}, "x"))
    assert shown(formatter, example) == "<|user|>\nHi<|assistant|>«\nHello<|user|>»"
    calls = [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    (example,) = formatter.encode(parse_record({"messages": calls}, "x"))
    assert shown(formatter, example) == (
        '<|user|>\nHi<|assistant|>«\n{"name": "f", "arguments": {"x": "é"}}<|observation|>»'
    )
    stops = formatter.tokenizer.decode(formatter.stop_ids, keep_special=True)
    assert stops == "<|user|><|observation|></s>"


def test_eos_at_the_end_of_a_conversation_is_no_part_of_its_answer():
    """As Phi-3's: a conversation that goes on has none, so the turn's own token stops an answer."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        "{% endfor %}{{ '<|im_start|>assistant\\n' if add_generation_prompt else eos_token }}"
    )
    formatter = chat_formatter(source)
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == EXPECTED + "</s>"
    assert formatter.tokenizer.decode(formatter.stop_ids, keep_special=True) == "<|im_end|></s>"


def test_an_answer_stands_behind_its_prompt_although_the_template_rewrites_that():
    """As GPT-OSS': the thought before a call goes as soon as an answer follows the result."""
    source = tagged(
        "{% generation %}{% if m.reasoning_content and loop.index > messages | length - 2 %}"
        "{{ '(' + m.reasoning_content + ')' }}{% endif %}{{ m.content + '<|im_end|>' }}"
        "{% endgeneration %}",
    )
    turns = rounds("Hi", "Hello", "Why?", "So.")
    turns[1]["reasoning_content"] = "Hm."
    formatter = chat_formatter(source)
    made = formatter.encode(parse_record({"messages": turns}, "x"))
    assert [shown(formatter, example) for example in made][1] == (
        f"{USER.format('Hi')}(Hm.)Hello<|im_end|>{USER.format('Why?')}«So.<|im_end|>»"
    )
    prompt = formatter.prompt(parse_record({"messages": turns[:3]}, "x")).tolist()
    assert made[1].tokens[: len(prompt)].tolist() == prompt


def test_a_fixed_date_is_what_a_template_gets():
    source = (
        "{{ strftime_now('%d %b %Y') + \"|\" + strftime_now('it\\'s %j') }}"
        + LAYOUTS["answer and stop"]
    )
    formatter = chat_formatter(source, template_options=('date="2026-01-31"',))
    (example,) = formatter.encode(parse_record({"messages": CHAT[:2]}, "x"))
    assert shown(formatter, example).startswith("31 Jan 2026|it's 031<|im_start|>user")
    # What is exported says the same, whatever the day.
    transformers = pytest.importorskip("transformers")
    del transformers
    reference = tok.theirs("byte_level", CHATML, formatter.template_source)
    text = reference.apply_chat_template(CHAT[:2], tokenize=False)
    assert text.startswith("31 Jan 2026|it's 031<|im_start|>user")
    with pytest.raises(UserError, match="date='31.1.': expected a date such as"):
        chat_formatter(source, template_options=('date="31.1."',))
    with pytest.raises(UserError, match="line 1 computes the format"):
        chat_formatter("{{ strftime_now('%d' + f) }}", template_options=('date="2026-01-31"',))
    # A template that can do without is left alone.
    free = "{{ strftime_now('%d') if strftime_now is defined else 'no date' }}"
    formatter = chat_formatter(free + LAYOUTS["answer and stop"])
    (example,) = formatter.encode(parse_record({"messages": CHAT[:2]}, "x"))
    assert shown(formatter, example).startswith("no date<|im_start|>user")


def test_contents_and_arguments_have_the_form_that_the_template_reads():
    parts = LAYOUTS["answer and stop"].replace("m.content", "m.content[0].text")
    formatter = chat_formatter(parts)
    (example,) = formatter.encode(parse_record({"messages": CHAT}, "x"))
    assert shown(formatter, example) == EXPECTED
    calls = [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    for arguments in ("c.function.arguments | tojson", "c.function.arguments"):
        source = LAYOUTS["answer and stop"].replace(
            "m.content + '<|im_end|>'",
            "m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name + ' ' + "
            + arguments
            + " }}{% endfor %}{{ '<|im_end|>'",
        )
        formatter = chat_formatter(source)
        (example,) = formatter.encode(parse_record({"messages": calls}, "x"))
        assert shown(formatter, example) == USER.format("Hi") + '«f {"x": "é"}<|im_end|>»\n'
