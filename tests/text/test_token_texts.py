"""The texts of tokens are the text of their sequence, cut between them."""

import pytest

from ift_jax.text.token_texts import token_texts
from tests.text.small_tokenizers import sentencepiece_tokenizer

TEXT = "It's 5\u00b0 in Z\u00fcrich: \u96ea \U0001f60a  two  spaces.\n\nEnd"


def test_they_join_to_the_text():
    tokenizer = sentencepiece_tokenizer()
    ids = tokenizer.encode(TEXT)
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids, keep_special=True)


def test_a_character_of_several_tokens_belongs_to_its_last():
    tokenizer = sentencepiece_tokenizer()
    ids = tokenizer.encode("a\U0001f60ab")
    texts = token_texts(tokenizer, ids)
    place = texts.index("\U0001f60a")
    assert texts[place - 1] == ""
    assert texts[place + 1] == "b"


@pytest.mark.parametrize("text", ["", "a"])
def test_short_sequences(text):
    tokenizer = sentencepiece_tokenizer()
    ids = tokenizer.encode(text)
    assert "".join(token_texts(tokenizer, ids)) == tokenizer.decode(ids)


def test_bytes_that_are_no_character_are_shown_and_end():
    tokenizer = sentencepiece_tokenizer()
    ids = tokenizer.encode("\U0001f60a")[:-1] * 6
    assert "".join(token_texts(tokenizer, ids)) == tokenizer.decode(ids, keep_special=True)
