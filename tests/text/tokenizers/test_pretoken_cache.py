"""The cache of pre-tokens gives the ids of `tokenizers`, whatever the text."""

import json
import random

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from ift_jax.text.tokenizers import pretoken_cache
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer

QWEN, LLAMA = (pretoken_cache.SPLITS[digits]["pattern"]["Regex"] for digits in (1, 3))
PIECES = [
    "a", "Is", "'s", "'LL", "7", "42", " ", "  ", "\n", "\r\n", "\t", "\x1c", "!", "...", "('", "_",
    "é", "e\u0301", "\u0301", "\u00a0", "\u3000", "\u200b", "中", "ſ", "²", "<tool>", "🙂",
    "<|end|>",
]  # fmt: skip
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
NO_REGEX = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


KNOWN = {
    "gpt2": BYTES,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES]),
    "qwen": pre_tokenizers.Sequence([split(QWEN), NO_REGEX]),
    "llama3": pre_tokenizers.Sequence([split(LLAMA), NO_REGEX]),
}
UNKNOWN = {
    "prefix": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "no_regex": NO_REGEX,
    "spaces_joined": pre_tokenizers.Sequence([split(r"\w+ \w+|."), NO_REGEX]),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(), NO_REGEX]),
    "metaspace": pre_tokenizers.Metaspace(),
}


def texts(n):
    rng = random.Random(3)
    return ["".join(rng.choices(PIECES, k=rng.randint(0, 12))) for _ in range(n)]


def made(pre_tokenizer, normalizer=None):
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|pad|>", "<|end|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts(2000), trainer)
    tokenizer.add_tokens([tokenizers.AddedToken("<tool>", normalized=False), "a a"])
    return tokenizer


def ours(tokenizer):
    names = {"eos_token": "<|end|>", "pad_token": "<|pad|>"}
    return HuggingFaceTokenizer(tokenizer.to_str(), names)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["none", "nfc"])
def test_cached_ids_equal_those_of_the_whole_text(name, normalizer):
    tokenizer = made(KNOWN[name], normalizer)
    mine = ours(tokenizer)
    assert mine._cache is not None
    tokenizer.encode_special_tokens = True
    for text in texts(6000):
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert [mine.encode(text, place) for place in ("start", "text")] == [expected] * 2, text


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_pre_tokenizer_is_not_cached(name):
    assert ours(made(UNKNOWN[name]))._cache is None


def test_options_that_change_the_pieces_rule_the_cache_out():
    fields = json.loads(made(BYTES).to_str())
    assert pretoken_cache.cuts_at_spaces(fields)
    dropout = fields | {"model": fields["model"] | {"dropout": 0.1}}
    lower = fields | {"normalizer": {"type": "Lowercase"}}
    added = fields["added_tokens"] + [{"content": "\u00e9", "special": False}]
    for changed in (dropout, lower, fields | {"added_tokens": added}):
        assert not pretoken_cache.cuts_at_spaces(changed)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(pretoken_cache, "_MAX_ENTRIES", 10)
    mine = ours(made(BYTES))
    ids = [mine.encode(f"{i} {i}") for i in range(30)]
    assert len(mine._cache._ids) <= 10
    mine.encode("x" * 100)
    assert "x" * 100 not in mine._cache._ids
    assert ids == [mine._encode_whole(f"{i} {i}") for i in range(30)]
