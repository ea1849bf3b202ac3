"""Stop strings, and streamed text against the text that is decoded at once."""

import pytest

from ift_jax.decoding import Stops, TextStream
from tests.text.small_tokenizers import small_tokenizer

TEXTS = [
    "Anna counts 23 apples 😀, é and 日本語.\nSo it is 🧑‍🚀",
    "  white space \n\n around \t ",
    "no end: <sto and <stop but not quite; then <stop> and more 😀",
    "�",
    "",
]


def stream(stops, ids, size):
    """The pieces of text that are shown when `size` tokens come at a time."""
    text_stream = TextStream(stops)
    pieces = [text_stream.update(ids[:n]) for n in range(size, len(ids), size)]
    return [*pieces, text_stream.update(ids, final=True)]


@pytest.mark.parametrize("kind", ["sentencepiece", "huggingface"])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_streamed_pieces_are_the_text(kind, text, size):
    tokenizer = small_tokenizer(kind)
    stops = Stops((tokenizer.eos_id,), ("<stop>", "quite;\n"), tokenizer.decode)
    ids = [*tokenizer.encode(text), tokenizer.eos_id]
    pieces = stream(stops, ids, size)
    assert "".join(pieces) == stops.text(ids) == text.split("<stop>")[0].strip()
    if text == TEXTS[0]:
        assert not any("�" in piece for piece in pieces)
        assert len([piece for piece in pieces if piece]) > 20 / (1 + size)


def test_what_may_become_a_stop_string_is_held_back():
    texts = {0: "one", 1: " <st", 2: "art", 3: " <stop", 4: ">", 5: "two"}
    stops = Stops((), ("<stop>",), lambda ids: "".join(texts[i] for i in ids))
    assert stream(stops, [0, 1, 2, 3, 4, 5], 1) == ["one", "", " <start", "", "", ""]
    assert stops.tokens_until_stop_string([0, 1, 2, 3, 4, 5], 0) == 5
    assert stops.tokens_until_stop_string([0, 1, 2, 3], 0) is None
    assert stops.stopped([0, 3, 4]) and not stops.stopped([0, 1, 2])


def test_bytes_that_spoil_a_run_until_it_is_whole():
    def decode(ids):  # Byte fallback of some tokenizers: a run of bytes is right as a whole.
        try:
            return bytes(ids).decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(ids)

    text = "é 😀 日本 ok"
    pieces = stream(Stops((), (), decode), list(text.encode()), 1)
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)


def test_the_first_of_several_ends_wins():
    stops = Stops((9,), ("b", "a"), lambda ids: "".join("xab#"[i % 9] for i in ids if i != 9))
    assert stops.text([0, 1, 2]) == "x" and stops.text([0, 0, 9, 1]) == "xx"
    assert stops.text([0, 0]) == "xx" and not stops.stopped([0, 0])


def test_wrong_stops_are_refused():
    with pytest.raises(ValueError, match="empty"):
        Stops((), ("",), str)
    with pytest.raises(ValueError, match="decodes"):
        Stops((), ("x",))
