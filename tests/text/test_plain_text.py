"""Plain texts, of which every token is trained, and answers of which only ranges are."""

import numpy as np
import pytest

from ift_jax.errors import UserError
from ift_jax.text.dropped import NOTHING_TRAINED, TOO_LONG
from ift_jax.text.rows.parse_record import parse_record
from tests.text import chat_tokenizers as chat
from tests.text.formatters import make_formatter, shown, small_formatter
from tests.text.small_tokenizers import CHATML, KINDS, t5_like_tokenizer


def text_of(text, **more):
    return parse_record({"text": text, **more}, "t.jsonl:1")


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_trained_and_control_strings_are_tokens(kind):
    how = small_formatter(kind)
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo"
    [example] = how.encode(text_of(text))
    bos, eos = how.tokenizer.bos_id, how.tokenizer.eos_id
    assert example.tokens.tolist() == [bos, *how.tokenizer.encode_with_controls(text), eos]
    assert example.weights.tolist() == [0.0] + [1.0] * (len(example.tokens) - 1)
    assert example.prompt_length == example.prefix_length == 1 and example.references == (text,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["<|im_end|>", "eos"])
def test_a_text_that_ends_in_a_stop_token_gets_no_other(kind, end):
    how = small_formatter(kind)
    eos = how.tokenizer.special_tokens_map["eos_token"]
    text = "Yo" + (eos if end == "eos" else end)
    [example] = how.encode(text_of(text))
    assert example.tokens.tolist()[1:] == how.tokenizer.encode_with_controls(text)


def test_a_text_that_begins_with_bos_gets_no_other():
    how = small_formatter("huggingface")
    [example] = how.encode(text_of("<s>Hi"))
    assert example.tokens.tolist().count(how.tokenizer.bos_id) == 1 and example.weights[0] == 0


def test_characters_that_look_like_marks_stay():
    how = small_formatter("huggingface")
    text = "a\ufdd0b\ufdd1\ufdd2c<|im_\ufdd2end|>"
    [example] = how.encode(text_of(text))
    assert how.tokenizer.decode(example.tokens.tolist()) == text


def test_a_weight_is_that_of_every_token():
    [example] = small_formatter("huggingface").encode(text_of("Hi there", weight=0.5))
    assert set(example.weights[1:].tolist()) == {0.5}
    [example] = small_formatter("huggingface").encode(text_of("Hi", weight=0))
    assert not example.weights.any()


def test_a_text_is_whole_or_dropped():
    how = small_formatter("huggingface", length=9, over_length="truncate-prompt")
    assert how.encode(text_of("The user counts apples and many more things")) == TOO_LONG
    assert how.encode(text_of("")) == NOTHING_TRAINED
    encoder = make_formatter(t5_like_tokenizer(), "encoder_decoder", template="plain")
    with pytest.raises(UserError, match="t.jsonl:1: a row with 'text' alone trains a decoder"):
        encoder.encode(text_of("a"))


def answer(content, detail, **more):
    message = {"role": "assistant", "content": content, "train_detail": detail, **more}
    return parse_record({"messages": [{"role": "user", "content": "Hi"}, message]}, "t.jsonl:1")


def ranges(*edges):
    return [{"begin_offset": b, "end_offset": e, "train": train} for b, e, train in edges]


@pytest.mark.parametrize(
    ("content", "edges", "expected"),
    [
        ("good bad good", [(0, 3, True), (9, 12, True)], "«good»bad«good<|im_end|>»"),
        ("good bad", [(0, 3, True)], "«good»bad«<|im_end|>»"),
        ("good bad", [(0, 7, True), (5, 7, False)], "«good»bad«<|im_end|>»"),
        ("aé你b", [(2, 2, True)], "aé«你»b«<|im_end|>»"),
        ("aé你b", [(0, 3, True), (2, 2, False)], "«aé»你«b<|im_end|>»"),
        ("  padded", [(2, 7, True)], "«padded<|im_end|>»"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("style", ["byte_level", "llama_legacy"])
def test_only_trained_ranges_are_trained_and_the_ids_are_those_of_the_whole(
    content, edges, expected, style
):
    how = make_formatter(chat.ours(style, CHATML))
    [example] = how.encode(answer(content, ranges(*edges)))
    [whole] = how.encode(answer(content, None))
    assert example.tokens.tolist() == whole.tokens.tolist()
    text = "".join(shown(how, example).split())
    assert text.partition("assistant")[2] == "".join(expected.split())


def test_a_turn_without_a_trained_range_is_context():
    how = make_formatter(chat.ours("byte_level", CHATML))
    assert how.encode(answer("bad", ranges((0, 2, False)))) == NOTHING_TRAINED
    [example] = how.encode(answer("good bad", ranges((0, 3, True)), weight=0.5))
    assert set(np.unique(example.weights)) == {0.0, 0.5}


def test_ranges_of_an_encoder_decoder():
    how = small_formatter("huggingface", "encoder_decoder")
    [example] = how.encode(answer("good bad", ranges((0, 3, True))))
    assert shown(how, example) == "«good» bad«<|endoftext|>»"
