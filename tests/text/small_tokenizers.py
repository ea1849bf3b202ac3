"""Small tokenizers, most of them with the control strings of chat templates."""

import functools
import io

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer
from ift_jax.text.tokenizers.train_sentencepiece import train_sentencepiece

CHATML = ("<|im_start|>", "<|im_end|>")
TULU = ("<|system|>", "<|user|>", "<|assistant|>")
TEXTS = [
    f"{who} {does} {count} {what}{mark}\nSo it is, {who.lower()} said; <b>{what}</b> | end"
    for who in ("Anna", "The user", "An assistant", "Nobody")
    for does in ("counts", "sorts", "has lost", "started with")
    for count in (1, 23, 456)
    for what in ("apples", "im portant files", "systems")
    for mark in (".", "!", " 😀", " é")
]


@functools.cache
def sentencepiece_bytes() -> bytes:
    return train_sentencepiece(TEXTS, vocab_size=480, control=(*CHATML, *TULU))


@functools.cache
def sentencepiece_tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(sentencepiece_bytes())


@functools.cache
def t5_like_tokenizer() -> SentencePieceTokenizer:
    """A SentencePiece model that normalizes as T5's does: white space is one space or none."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TEXTS for line in text.split("\n")),
        model_writer=model,
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        bos_id=-1,
        unk_id=2,
        num_threads=1,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


@functools.cache
def llama_model() -> bytes:
    """A SentencePiece model with Llama's options: a space in front, bytes, all white space kept."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TEXTS for line in text.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        num_threads=1,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


@functools.cache
def huggingface_definition() -> str:
    """A byte-level BPE `tokenizer.json` in which ChatML's markers are special."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>", "<s>", *CHATML, "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer.to_str()


NAMES = {"eos_token": "<|endoftext|>", "bos_token": "<s>", "pad_token": "<pad>"}


@functools.cache
def huggingface_tokenizer() -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(huggingface_definition(), NAMES)


def unigram_with_spelled_controls() -> HuggingFaceTokenizer:
    """A tokenizer whose control strings are pieces of its model, as in T5's tokenizer.json."""
    letters = [chr(i) for i in range(0x20, 0x7F)] + ["\u2581"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -5.0) for c in letters)]
    inner = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return HuggingFaceTokenizer(inner.to_str(), {"eos_token": "</s>", "pad_token": "<pad>"})


KINDS = ("sentencepiece", "huggingface")


def small_tokenizer(kind: str) -> Tokenizer:
    return sentencepiece_tokenizer() if kind == "sentencepiece" else huggingface_tokenizer()


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's letters for the 256 bytes: printable Latin-1 as itself, the rest from U+0100."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): b for i, b in enumerate(rest)}


_LETTERS = _byte_level_alphabet()


def token_bytes(kind: str, token: int) -> bytes:
    """The bytes of text that a token stands for, from its piece alone."""
    tokenizer = small_tokenizer(kind)
    for text, special in tokenizer.special_tokens.items():
        if special == token:
            return text.encode()
    if isinstance(tokenizer, SentencePieceTokenizer):
        piece = tokenizer._processor.id_to_piece(token)
        if tokenizer._processor.is_byte(token):
            return bytes([int(piece[1:-1], 16)])
        return piece.replace("\u2581", " ").encode()
    piece = tokenizer._plain.id_to_token(token)
    return bytes(_LETTERS[letter] for letter in piece)
