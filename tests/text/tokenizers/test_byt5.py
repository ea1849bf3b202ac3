"""ByT5's tokenizer against `ByT5Tokenizer` of `transformers`, and its way through folders."""

import functools
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ift_jax.config.schema import EncoderDecoderConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.interop.exported_folder import check_export
from ift_jax.interop.hugging_face_export import export
from ift_jax.models import build_model
from ift_jax.text.tokenizers.load import load_tokenizer, tokenizer_file_paths, tokenizer_from_files
from tests.small_models import random_params

TEMPLATE = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"


@functools.cache
def theirs():
    transformers = pytest.importorskip("transformers", reason="its tokenizer is compared")
    return transformers.ByT5Tokenizer()


def test_the_built_in_tokenizer_has_the_vocabulary_of_transformers():
    tokenizer = load_tokenizer("byt5")
    assert tokenizer.vocab_size == len(theirs().get_vocab()) == 384
    assert tokenizer.special_tokens == theirs().added_tokens_encoder
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 1, None)
    assert tokenizer_file_paths("byt5") == []
    again = tokenizer_from_files(tokenizer.files)
    assert again.fingerprint == tokenizer.fingerprint


texts = st.text(max_size=12)
controls = st.sampled_from(["</s>", "<pad>", "<unk>", "<extra_id_0>", "<extra_id_124>", " ", "\n"])


@settings(max_examples=40)
@given(parts=st.lists(texts | controls, max_size=6))
@example(parts=["a", " ", "</s>", " ", "\xa0b \u200b", "<extra_id_0>", " c"])
@example(parts=["\x1f", "</s>"])
@example(parts=["<", "</s>", "/s>", "é", "😀"])
def test_any_text_has_the_ids_of_transformers_and_comes_back(parts):
    tokenizer = load_tokenizer("byt5")
    text = "".join(parts)
    ids = tokenizer.encode_with_controls(text)
    assert ids == theirs().encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == theirs().decode(ids, skip_special_tokens=True)
    assert tokenizer.decode(ids, keep_special=True) == theirs().decode(ids)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not set(tokenizer.encode(text)) & set(tokenizer.special_tokens.values())


@settings(max_examples=40)
@given(ids=st.lists(st.integers(0, 383), max_size=12))
def test_any_ids_are_decoded_as_by_transformers(ids):
    tokenizer = load_tokenizer("byt5")
    assert tokenizer.decode(ids) == theirs().decode(ids, skip_special_tokens=True)
    assert tokenizer.decode([*ids, 384, -1], keep_special=True) == theirs().decode(ids)


def test_a_folder_of_transformers_is_read_and_an_export_is_loaded_there(tmp_path):
    theirs().save_pretrained(tmp_path / "released")
    assert not (tmp_path / "released" / "tokenizer.json").exists()
    tokenizer = load_tokenizer(
        str(tmp_path / "released"), TokenizerConfig(added_tokens=("<|im_start|>",))
    )
    assert (tokenizer.base_vocab_size, tokenizer.vocab_size) == (384, 385)
    model = build_model(
        EncoderDecoderConfig(
            vocab_size=385, d_model=8, n_heads=1, head_dim=8, d_ff=8,
            n_encoder_layers=1, n_decoder_layers=1,
        )
    )  # fmt: skip
    out = tmp_path / "exported"
    export(model, random_params(model), tokenizer, str(out), template=TEMPLATE)
    check_export(str(out))
    back = load_tokenizer(str(out))
    text = "Grüße <extra_id_3>\n<|im_start|> x </s> y"
    ids = tokenizer.encode_with_controls(text)
    assert ids[-4:] == [384, *tokenizer.encode(" x"), 1, *tokenizer.encode("y")][-4:]
    assert back.encode_with_controls(text) == ids and back.chat_template == TEMPLATE
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(out)
    assert type(loaded).__name__ == "ByT5Tokenizer"
    assert loaded(text).input_ids == [*ids, 1]


def test_what_is_no_byt5_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="tokenizer.extra_ids = 100: expected 0, byt5 has"):
        load_tokenizer("byt5", TokenizerConfig(extra_ids=100))
    config = {"tokenizer_class": "ByT5Tokenizer", "eos_token": "<end>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="eos_token is '<end>'; expected '</s>', ByT5's own"):
        load_tokenizer(str(tmp_path))
    moved = {"tokenizer_class": "ByT5Tokenizer", "added_tokens_decoder": {"400": "<new>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(moved))
    with pytest.raises(UserError, match="declare '<new>' as id 400; expected 384"):
        load_tokenizer(str(tmp_path))
