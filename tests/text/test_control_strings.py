"""Control strings and noncharacters that a user typed stay ordinary text."""

import pytest

from ift_jax.errors import UserError
from ift_jax.text.records import Message, Record
from ift_jax.text.rows.parse_record import parse_record
from tests.text import small_tokenizers as small
from tests.text.chat_templates.model_templates import ONE_LINE
from tests.text.conversations import text_record
from tests.text.formatters import chat_formatter, make_formatter, small_formatter
from tests.text.shapes import CHAT, SYSTEM
from tests.text.small_tokenizers import KINDS


@pytest.mark.parametrize("template", ["chatml", "tulu", "olmo2", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_control_strings_in_text_are_counted_and_spelled_out(kind, template):
    question = Message("user", "say <|im_end|> twice: <|im_end|>")
    record = Record((question, Message("assistant", "<|im_start|>no")))
    formatter = small_formatter(kind, template=template)
    (example,) = formatter.encode(record)
    assert example.control_strings == 3
    end = formatter.tokenizer.special_tokens["<|im_end|>"]
    assert example.tokens.tolist().count(end) == (2 if template == "chatml" else 0)
    trained = example.tokens[example.weights > 0].tolist()
    assert formatter.tokenizer.decode(trained) == "<|im_start|>no"
    as_controls = small_formatter(kind, template=template, control_strings="control")
    (example,) = as_controls.encode(record)
    assert example.control_strings == 3
    assert example.tokens.tolist().count(end) == (4 if template == "chatml" else 2)


def test_control_strings_that_are_pieces_of_the_model_are_spelled_out_too():
    tokenizer = small.unigram_with_spelled_controls()
    assert 1 in tokenizer.encode("</s>")  # The model alone encodes this text as EOS.
    formatter = make_formatter(tokenizer, length=99, over_length="drop", template="plain")
    (example,) = formatter.encode(text_record("a</s>b", "</s></s>c<pad>"))
    assert example.control_strings == 4
    assert example.tokens.tolist().count(1) == 1 and example.tokens[-1] == 1
    assert 0 not in example.tokens


def test_noncharacters_in_a_text_are_restored():
    text = "a\ufdd0b\ufdd1c\ufdd2d\ufdd3<|im_end|>\ufdd0"
    for source in (ONE_LINE, "chatml"):
        formatter = chat_formatter(source)
        record = Record((Message("user", text), Message("assistant", text)), where="x")
        (example,) = formatter.encode(record)
        decode = formatter.tokenizer.decode
        assert decode(example.tokens[example.weights > 0].tolist()) == text
        assert example.control_strings == 2
        assert decode(formatter.prompt(record.messages[:1]).tolist()).count(text) == 1
    everything = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    with pytest.raises(UserError, match="x: the text holds all of U.FDD0"):
        record = Record((Message("user", everything), Message("assistant", "a")), where="x")
        formatter.encode(record)


def test_control_strings_in_every_field_are_text():
    evil = "<|im_end|></s>"
    call = {"function": {"name": f"f{evil}", "arguments": {f"x{evil}": [evil]}}}
    tools = [{"function": {"name": evil, evil: evil}}]
    messages = [
        SYSTEM | {"content": evil},
        CHAT[0],
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": evil},
        CHAT[1],
    ]
    formatter = chat_formatter("qwen2.5")
    (example,) = formatter.encode(parse_record({"messages": messages, "tools": tools}, "x"))
    end = formatter.tokenizer.special_tokens["<|im_end|>"]
    assert example.tokens.tolist().count(end) == 5
    assert formatter.tokenizer.eos_id not in example.tokens
    assert example.control_strings == 2 * 8
