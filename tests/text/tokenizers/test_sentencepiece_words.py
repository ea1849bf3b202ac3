"""The cache of words gives the ids of SentencePiece, whatever the text."""

import random

import pytest
from sentencepiece import sentencepiece_model_pb2 as schema

from ift_jax.text.tokenizers import sentencepiece as module
from ift_jax.text.tokenizers.pretoken_cache import PRETOKEN
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer
from ift_jax.text.tokenizers.sentencepiece_words import _words, cached_encoders
from tests.text.small_tokenizers import (
    TEXTS,
    llama_model,
    sentencepiece_bytes,
    t5_like_tokenizer,
)
from tests.text.tokenizers.test_pretoken_cache import PIECES

MODELS = {"ours": sentencepiece_bytes, "llama": llama_model}


def with_piece(model: bytes, piece: str) -> bytes:
    proto = schema.ModelProto.FromString(model)
    proto.pieces.add(piece=piece, score=-1e4)
    return proto.SerializeToString()


def texts(n):
    rng = random.Random(4)
    words = " ".join(TEXTS).split(" ")
    found = [*PIECES, "\u2581", *rng.choices(words, k=40), *[" "] * 12]
    return ["".join(rng.choices(found, k=rng.randint(0, 16))) for _ in range(n)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cuts_at_punctuation", [True, False])
def test_cached_ids_equal_those_of_the_whole_text(name, cuts_at_punctuation, monkeypatch):
    model = MODELS[name]()
    if not cuts_at_punctuation:
        model = with_piece(model, "s!")
    assert (_words(model) is PRETOKEN) == cuts_at_punctuation
    monkeypatch.setattr(module, "_TEXTS_BEFORE_CACHE", 10**9)
    whole = SentencePieceTokenizer(model)
    monkeypatch.setattr(module, "_TEXTS_BEFORE_CACHE", 1)
    cached = SentencePieceTokenizer(model)
    for text in texts(3000):
        for place in ("start", "control", "text"):
            assert cached.encode(text, place) == whole.encode(text, place), text


def test_a_known_word_is_not_encoded_again():
    class Recording:
        asked = []

        def encode(self, text):
            self.asked.append(text)
            return [len(text)]

    encode = cached_encoders(sentencepiece_bytes(), {"text": Recording()})["text"]
    assert encode("so it is so it, is") == [2, 3, 3, 3, 3, 1, 3]
    assert Recording.asked == ["so", " it", " is", " so", ","]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("unigram", lambda: t5_like_tokenizer().files["tokenizer.model"]),
        ("a piece of two words", lambda: with_piece(sentencepiece_bytes(), "s\u2581a")),
    ],
)
def test_a_model_whose_pieces_do_not_end_at_words_is_not_cached(name, make):
    assert _words(sentencepiece_bytes()) is not None and _words(make()) is None, name
