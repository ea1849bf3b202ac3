"""Tokenizers: ids, round trips, special tokens, and clear errors."""

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from ift_jax.config.schema import TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.text.records import Message, Record
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from ift_jax.text.tokenizers.load import load_tokenizer
from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer
from ift_jax.text.tokenizers.train_sentencepiece import train_sentencepiece
from tests.shared_data import SHARED, requires_shared
from tests.text import chat_tokenizers as chat
from tests.text import small_tokenizers as small
from tests.text.formatters import make_formatter
from tests.text.small_tokenizers import KINDS

T5 = SHARED / "data" / "tokenizers" / "t5_sentencepiece.model"
PAIRS = (("The user", " counts 23 files"), ("Anna\n", "has lost"), ("a:", " é b"))
HARD = [
    "",
    " ",
    "  two",
    "\n\n x \n",
    "\t\r\n",
    "😀👩\u200d👩\u200d👧",
    "e\u0301ﬁ",
    "\u2581 x\u2581",
    "a\0b",
    "\ufffd⁇",
    "<unk> </s> <|im_end|> <0x0A>",
    "שלום 你好",
]


@requires_shared
def test_t5_gives_the_published_ids():
    tokenizer = load_tokenizer(str(T5), TokenizerConfig(extra_ids=100))
    ids = tokenizer.encode("translate English to German: The house is wonderful.")
    assert ids == [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5]
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, None)
    assert tokenizer.vocab_size == 32100
    assert tokenizer.special_tokens["<extra_id_0>"] == 32099
    assert tokenizer.special_tokens["<extra_id_99>"] == 32000
    assert tokenizer.decode([*ids, 1, 0, 0, 32105]) == (
        "translate English to German: The house is wonderful."
    )
    assert tokenizer.decode([32099, 37, 1], keep_special=True) == "<extra_id_0>The</s>"
    assert tokenizer.encode_with_controls("The <extra_id_1> house") == [37, 32098, 629]
    assert not set(tokenizer.encode("The <extra_id_1> </s> <pad>")) & {32098, 1, 0}


@requires_shared
def test_a_model_without_padding_pads_with_its_unknown_piece():
    tokenizer = load_tokenizer(str(T5.with_name("m.model")))
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (2, 1, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HARD)
def test_hard_texts_come_back_exactly(kind, text):
    tokenizer = small.small_tokenizer(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.special_tokens.values())


@given(text=st.text(max_size=40))
def test_any_text_comes_back_exactly(text):
    for kind in KINDS:
        tokenizer = small.small_tokenizer(kind)
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_control_strings_become_ids_only_when_asked(kind):
    tokenizer = small.small_tokenizer(kind)
    end = tokenizer.special_tokens["<|im_end|>"]
    ids = tokenizer.encode_with_controls(" yes<|im_end|>\n<|im_end|>")
    assert ids == [*tokenizer.encode(" yes"), end, *tokenizer.encode("\n"), end]
    assert end not in tokenizer.encode(" yes<|im_end|>\n")
    assert tokenizer.decode(ids) == " yes\n"
    assert tokenizer.decode(ids, keep_special=True) == " yes<|im_end|>\n<|im_end|>"
    padded = [tokenizer.pad_id, *ids, tokenizer.vocab_size + 3, -1, tokenizer.pad_id]
    assert tokenizer.decode(padded) == " yes\n"
    assert tokenizer.decode(padded, keep_special=True).startswith("<pad> yes")


def test_training_is_reproducible_and_its_ids_have_a_fixed_layout():
    again = train_sentencepiece(
        iter(small.TEXTS), vocab_size=480, control=(*small.CHATML, *small.TULU)
    )
    assert again == small.sentencepiece_bytes()
    tokenizer = SentencePieceTokenizer(again)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, 2)
    assert tokenizer.special_tokens["<|im_start|>"] == 4
    assert tokenizer.vocab_size == 480
    assert len(tokenizer.encode("Anna counts apples")) < 10  # It learned something.
    assert len(tokenizer.encode("2024")) == 4  # Each digit is a piece.
    other = train_sentencepiece(small.TEXTS[1:40], vocab_size=380)
    assert SentencePieceTokenizer(other).fingerprint != tokenizer.fingerprint
    assert SentencePieceTokenizer(again, 3).fingerprint != tokenizer.fingerprint
    assert SentencePieceTokenizer(again).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("size", "words"), [(100, "expected at least"), (100_000, "expected at most")]
)
def test_the_error_of_a_wrong_vocabulary_size_gives_the_bound(size, words):
    with pytest.raises(UserError, match=f"train_vocab_size = {size}: {words} [0-9]+"):
        train_sentencepiece(small.TEXTS, vocab_size=size)


def test_an_error_while_reading_texts_is_raised_as_it_is():
    def texts():
        yield from small.TEXTS
        raise UserError("data.jsonl:3: not JSON")

    with pytest.raises(UserError, match="^data.jsonl:3: not JSON$"):
        train_sentencepiece(texts(), vocab_size=480)
    with pytest.raises(UserError, match="train_vocab_size = 480: expected text"):
        train_sentencepiece(["", "\n"], vocab_size=480)


def test_padding_is_never_eos():
    def pad(**names):
        tokenizer = HuggingFaceTokenizer(small.huggingface_definition(), names)
        assert tokenizer.pad_id != tokenizer.eos_id
        return tokenizer.pad_id

    assert pad(**small.NAMES) == 4
    # If padding is EOS, another special token with "pad" in its name pads.
    assert pad(eos_token="<|im_end|>", pad_token="<|im_end|>") == 4
    assert pad(eos_token="<|im_end|>") == 4
    # Without one, the unknown token pads, or a new token.
    fields = json.loads(small.huggingface_definition())
    fields["added_tokens"] = [t for t in fields["added_tokens"] if t["content"] != "<pad>"]
    fields["model"]["vocab"]["[filler]"] = fields["model"]["vocab"].pop("<pad>")
    fewer = json.dumps(fields)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    assert HuggingFaceTokenizer(fewer, names | {"unk_token": "<|endoftext|>"}).pad_id == 0
    for more, word in (({}, "<pad>"), ({"pad_token": "[P]"}, "[P]")):
        tokenizer = HuggingFaceTokenizer(fewer, names | more)
        assert tokenizer.special_tokens[word] == tokenizer.pad_id == tokenizer.base_vocab_size
        assert (
            tokenizer.vocab_size == tokenizer.base_vocab_size + 1
            and tokenizer.special_tokens_map["pad_token"] == word
        )


def test_named_tokens_are_special_even_if_not_marked():
    fields = json.loads(small.huggingface_definition())
    for token in fields["added_tokens"]:
        token["special"] = False
    tokenizer = HuggingFaceTokenizer(json.dumps(fields), {"eos_token": "<|im_end|>"} | small.NAMES)
    assert 0 not in tokenizer.encode("a<|endoftext|>")
    assert tokenizer.decode([0]) == ""


def test_left_over_truncation_and_template_tokens_are_ignored():
    inner = tokenizers.Tokenizer.from_str(small.huggingface_definition())
    inner.enable_truncation(3)
    inner.enable_padding(length=5)
    inner.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    tokenizer = HuggingFaceTokenizer(inner.to_str(), small.NAMES)
    text = "The user counts apples and files"
    assert tokenizer.encode(text) == small.huggingface_tokenizer().encode(text)
    assert tokenizer.encode("") == []


def test_folders_and_files_load(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tokenizer.json").write_text(small.huggingface_definition())
    token = {"content": "<|im_end|>", "special": True}
    (tmp_path / "a" / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<s>"}))
    config = {"eos_token": token, "bos_token": None, "pad_token": "<pad>"}
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps(config))
    for path in (tmp_path / "a", tmp_path / "a" / "tokenizer.json"):
        tokenizer = load_tokenizer(str(path))
        assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (3, None, 4)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "spiece.model").write_bytes(small.sentencepiece_bytes())
    tokenizer = load_tokenizer(str(tmp_path / "b"), TokenizerConfig(extra_ids=2))
    assert tokenizer.special_tokens["<extra_id_0>"] == tokenizer.vocab_size - 1 == 481


def test_errors_name_the_file_that_cannot_be_loaded(tmp_path):
    def error(path, **options):
        with pytest.raises(UserError) as raised:
            load_tokenizer(str(path), TokenizerConfig(**options))
        message = str(raised.value)
        assert "\n" not in message
        return message

    assert "no file or folder" in error(tmp_path / "none.model")
    assert "found neither" in error(tmp_path)
    (tmp_path / "x.model").write_bytes(b"not a model")
    assert "x.model: not a SentencePiece model" in error(tmp_path / "x.model")
    (tmp_path / "y.model").write_bytes(b"")
    assert "y.model: not a SentencePiece model" in error(tmp_path / "y.model")
    assert "found 2 .model files" in error(tmp_path)
    (tmp_path / "vocab.txt").write_text("a")
    assert "expected a SentencePiece .model or a tokenizer.json" in error(tmp_path / "vocab.txt")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "tokenizer.json: not a tokenizer.json" in error(tmp_path)
    (tmp_path / "tokenizer.json").write_text(small.huggingface_definition())
    assert "no eos_token; expected a tokenizer_config.json" in error(tmp_path)
    assert "extra_ids = 5: expected 0" in error(tmp_path, extra_ids=5)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    assert "eos_token is '<end>', which is not in the vocabulary" in error(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    assert "tokenizer_config.json: expected a JSON object" in error(tmp_path)


def folder_of(tokenizer, path):
    path.mkdir()
    for name, content in tokenizer.files.items():
        (path / name).write_bytes(content)
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_are_special_and_last(kind, tmp_path):
    base = small.small_tokenizer(kind)
    original = folder_of(base, tmp_path / "original")
    added = ("<|eot|>", "<|im_end|>", "<tool>", "<|eot|>")
    tokenizer = load_tokenizer(original, TokenizerConfig(added_tokens=added))
    assert tokenizer.base_vocab_size == base.vocab_size
    assert tokenizer.special_tokens["<|eot|>"] == base.vocab_size
    assert tokenizer.special_tokens["<tool>"] == base.vocab_size + 1 == tokenizer.vocab_size - 1
    assert tokenizer.special_tokens["<|im_end|>"] == base.special_tokens["<|im_end|>"]
    ids = tokenizer.encode_with_controls("a<|eot|> b")
    assert ids == [*base.encode("a"), base.vocab_size, *base.encode(" b")]
    assert base.vocab_size not in tokenizer.encode("a<|eot|> b")
    assert tokenizer.decode(ids) == "a b"
    assert tokenizer.decode(ids, keep_special=True) == "a<|eot|> b"
    assert tokenizer.fingerprint != base.fingerprint
    # The folder alone gives the same tokenizer; adding the tokens again changes nothing.
    again = folder_of(tokenizer, tmp_path / "again")
    options = TokenizerConfig(added_tokens=added)
    for other in (load_tokenizer(again), load_tokenizer(again, options)):
        assert other.fingerprint == tokenizer.fingerprint
        assert other.special_tokens == tokenizer.special_tokens
        assert other.vocab_size == tokenizer.vocab_size


def test_added_tokens_come_after_extra_ids(tmp_path):
    tokenizer = SentencePieceTokenizer(small.sentencepiece_bytes(), 3, added_tokens=("<|eot|>",))
    assert tokenizer.special_tokens["<|eot|>"] == 483 == tokenizer.vocab_size - 1
    assert tokenizer.special_tokens["<extra_id_0>"] == 482 and tokenizer.base_vocab_size == 483
    folder = folder_of(tokenizer, tmp_path / "t5")
    again = load_tokenizer(folder, TokenizerConfig(extra_ids=3))
    assert again.fingerprint == tokenizer.fingerprint
    with pytest.raises(UserError, match=".<|eot|>. as id 483; expected 480 with 0"):
        load_tokenizer(folder)


def test_a_vocabulary_with_gaps_takes_no_token():
    fields = json.loads(small.huggingface_definition())
    fields["added_tokens"] = [t for t in fields["added_tokens"] if t["content"] != "<pad>"]
    del fields["model"]["vocab"]["<pad>"]
    with pytest.raises(UserError, match="t.json: its ids have gaps"):
        HuggingFaceTokenizer(json.dumps(fields), small.NAMES | {"pad_token": "</s>"}, "t.json")


@pytest.mark.parametrize("style", chat.STYLES)
def test_ids_of_the_parts_of_a_text_join_to_those_of_the_whole(style):
    tokenizer = chat.ours(style, ("<|x|>",))
    for before, after in PAIRS:
        whole = tokenizer.encode(before + after)
        assert tokenizer.encode(before) + tokenizer.encode(after, "text") == whole
        control = tokenizer.special_tokens["<|x|>"]
        joined = tokenizer.encode_with_controls(f"<|x|>{before}{after}")
        place = tokenizer.place_after("<|x|>")
        assert [control, *tokenizer.encode(before + after, place)] == joined


def test_sentencepiece_that_puts_a_space_in_front():
    tokenizer = SentencePieceTokenizer(small.llama_model())
    for before, after in PAIRS:
        whole = tokenizer.encode(before + after)
        assert tokenizer.encode(before) + tokenizer.encode(after, "text") == whole
        assert tokenizer.encode(after, "control") == tokenizer.encode(after)
    assert tokenizer.encode("has", "text") != tokenizer.encode("has")


def test_tokens_that_swallow_white_space():
    inner = tokenizers.Tokenizer.from_str(chat.definition("byte_level", ("<|r|>", "<|l|>")))
    fields = json.loads(inner.to_str())
    for token in fields["added_tokens"]:
        token["rstrip"] = token["content"] == "<|r|>"
        token["lstrip"] = token["content"] == "<|l|>"
    tokenizer = HuggingFaceTokenizer(json.dumps(fields), chat.NAMED)
    assert tokenizer.strips == {"<|r|>": (False, True), "<|l|>": (True, False)}
    source = (
        "{% for m in messages %}<|r|> \n{{ m.role }} <|l|>{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content ~ eos_token }}{% endgeneration %}{% else %}{{ m.content }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|r|> \nassistant <|l|>{% endif %}"
    )
    formatter = make_formatter(tokenizer, length=99, over_length="error", template=source)
    record = Record((Message("user", "Hi"), Message("assistant", "a b")))
    (example,) = formatter.encode(record)
    text = "<|r|> \nuser <|l|>Hi<|r|> \nassistant <|l|>a b</s>"
    assert example.tokens.tolist() == tokenizer.encode_with_controls(text)
