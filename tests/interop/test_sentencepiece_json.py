"""The `tokenizer.json` of a SentencePiece model gives the ids that sentencepiece gives."""

import io
import random

import pytest
import sentencepiece
import tokenizers

from ift_jax.errors import UserError
from ift_jax.interop.sentencepiece_json import to_tokenizer_json
from ift_jax.text.tokenizers.declared_tokens import Declared, DeclaredToken
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer
from ift_jax.text.tokenizers.train_sentencepiece import train_sentencepiece
from tests.shared_data import SHARED, requires_shared
from tests.text.small_tokenizers import CHATML, TEXTS, llama_model, sentencepiece_bytes

VARIED = [
    "Hello world",
    "",
    " ",
    "  two  spaces ",
    "tab\tand\nnewline\n\n",
    "\u00dcn\u00efc\u00f6d\u00e9 \ufb01 \u2460",
    "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad",
    "emoji \U0001f600\U0001f469\u200d\U0001f467 end",
    "def f(x):\n    return x+1",
    "a\u0301 combining",
    "\uff11\uff12 full width \uff21",
    "\u200bzero\ufeff",
    "\u0928\u092e\u0938\u094d\u0924\u0947",
    "line\r\nwindows",
    "x" * 50,
    "1234567890 3.14159",
    "translate English to German: The house is wonderful.",
    "\u0645\u0631\u062d\u0628\u0627",
    "  leading",
    "trailing  ",
    "quote \u201csmart\u201d \u2019 \u2014 \u2026",
    *TEXTS[::9],
]


def texts(n: int = 200) -> list[str]:
    """Varied texts, and n of random characters."""
    rng = random.Random(0)
    pool = "abc \u00e9\n\t \u65e5\U0001f6001.,-\u00df\u00f1 e|oi"
    return VARIED + ["".join(rng.choices(pool, k=rng.randint(1, 40))) for _ in range(n)]


def trained(**options) -> bytes:
    """A SentencePiece model of 400 pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TEXTS for line in text.split("\n")),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def check(model: bytes, extra_ids: int = 0) -> None:
    """Compares ids, decoded texts, and texts with control tokens."""
    ours = SentencePieceTokenizer(model, extra_ids)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    theirs = tokenizers.Tokenizer.from_str(to_tokenizer_json(ours))
    assert theirs.get_vocab_size() == ours.vocab_size
    for text in texts():
        want = processor.encode(text)
        assert theirs.encode(text, add_special_tokens=False).ids == want, text
        if processor.unk_id() not in want:
            assert theirs.decode(want) == processor.decode(want)
    for control in (*ours.special_tokens, "")[-3:]:
        text = f"counts apples{control} 23 {control}{control}sorts"
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode_with_controls(text)


MODELS = {
    "our own": dict(),
    "llama's kind": dict(
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
    ),
    "bpe without bytes": dict(model_type="bpe"),
    "unigram": dict(),
    "unigram with bytes": dict(byte_fallback=True, normalization_rule_name="nfkc"),
    "gemma's kind": dict(
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=False,
        user_defined_symbols=["\n\n", "<b>", "\u2581\u2581"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_the_same_ids_as_sentencepiece(kind):
    check(sentencepiece_bytes() if kind == "our own" else trained(**MODELS[kind]))


@requires_shared
@pytest.mark.parametrize(("file", "extra"), [("t5_sentencepiece.model", 100), ("m.model", 0)])
def test_the_same_ids_as_real_models(file, extra):
    check((SHARED / "data" / "tokenizers" / file).read_bytes(), extra)


def test_an_encoder_appends_eos():
    model = train_sentencepiece(TEXTS, vocab_size=480, control=CHATML)
    ours = SentencePieceTokenizer(model)
    eos = ("</s>", ours.eos_id)
    theirs = tokenizers.Tokenizer.from_str(to_tokenizer_json(ours, eos))
    assert theirs.encode("counts").ids == [*ours.encode("counts"), ours.eos_id]
    with pytest.raises(UserError, match="neither unigram nor BPE"):
        to_tokenizer_json(SentencePieceTokenizer(trained(model_type="char")))


@pytest.mark.parametrize("options", [{"legacy": False}, {"add_prefix_space": False}, {}])
def test_declared_tokens_and_options_are_kept(options):
    tokens = (
        DeclaredToken("<|r|>", 420, rstrip=True),
        DeclaredToken("<think>", 421, special=False),
        DeclaredToken("<|renamed|>", 419),
    )
    ours = SentencePieceTokenizer(llama_model(), declared=Declared(tokens=tokens, **options))
    theirs = tokenizers.Tokenizer.from_str(to_tokenizer_json(ours))
    assert theirs.token_to_id("<|renamed|>") == 419
    for text in ("counts<|r|>  apples", "<|r|>\n<think> has</s> lost", "x<|renamed|>y<think>z"):
        ids = ours.encode_with_controls(text)
        assert theirs.encode(text, add_special_tokens=False).ids == ids
    assert 421 in ours.encode("a<think>b") and "<think>" in theirs.decode([421])
