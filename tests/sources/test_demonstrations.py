"""Which solved examples fit into a prompt."""

import seqio.test_utils

from ift_jax.sources.demonstrations import PromptLimit, demonstrations_that_fit


def _fits(taken):
    return sum(map(len, taken)) <= 6


def test_they_are_taken_in_order_while_they_fit():
    words = ["abc", "de", "fghi", "j"]
    assert demonstrations_that_fit(words, _fits) == ["abc", "de"]
    assert demonstrations_that_fit(words, _fits, skip_long=True) == ["abc", "de", "j"]
    assert demonstrations_that_fit(["too long"], _fits) == []


def test_none_is_drawn_after_the_one_that_does_not_fit():
    drawn = []

    def words():
        for word in ("abc", "defg", "h"):
            drawn.append(word)
            yield word

    demonstrations_that_fit(words(), _fits)
    assert drawn == ["abc", "defg"]


def test_a_limit_is_in_characters_or_in_tokens():
    assert PromptLimit(5).fits("12345") and not PromptLimit(5).fits("123456")
    vocabulary = seqio.test_utils.sentencepiece_vocab()
    text = "this is a test"
    n = len(vocabulary.encode(text))
    path = vocabulary.sentencepiece_model_file
    assert PromptLimit(0, path, n).fits(text)
    assert not PromptLimit(0, path, n - 1).fits(text)
    assert not PromptLimit(0, path, n, reserved_tokens=1).fits(text)
