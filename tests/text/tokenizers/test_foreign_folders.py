"""A tokenizer's folder that holds a wrong type is refused in one line that names file and field."""

import json

import pytest
import tokenizers

from ift_jax.errors import UserError
from ift_jax.text.tokenizers.load import load_tokenizer
from tests.text.small_tokenizers import NAMES, huggingface_definition, sentencepiece_bytes


def write_hugging_face(folder, change=lambda definition: None, **config):
    definition = json.loads(huggingface_definition())
    change(definition)
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    (folder / "tokenizer_config.json").write_text(json.dumps(NAMES | config))
    return str(folder)


def with_id_of_2_31(definition):
    definition["model"]["vocab"]["so far away"] = 2**31


def with_special_object(definition):
    definition["added_tokens"][0]["special"] = {}


CONFIGS = {
    "an object": ({"chat_template": {"default": "x"}}, "chat_template is .*; expected a string or"),
    "a list without names": ({"chat_template": [{"template": "x"}]}, "an object of a name and a"),
    "a list of texts": ({"chat_template": ["x"]}, "an object of a name and a template"),
    "a number": ({"chat_template": 1}, "chat_template is 1; expected a string or null or a list"),
    "half a character": ({"chat_template": "\ud83d"}, r"chat_template is '\\ud83d'; expected"),
    "half a token": (
        {"added_tokens_decoder": {"900": {"content": "\ud83d"}}},
        "added_tokens_decoder.*expected a token",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_a_wrong_type_is_refused(case, tmp_path):
    config, message = CONFIGS[case]
    with pytest.raises(UserError, match=f"tokenizer_config.json: .*{message}") as caught:
        load_tokenizer(write_hugging_face(tmp_path, **config))
    assert "\n" not in str(caught.value)


def test_a_null_template_is_none(tmp_path):
    assert load_tokenizer(write_hugging_face(tmp_path, chat_template=None)).chat_template == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_id_of_2_31, "'so far away' has id 2147483648; expected less than 16777216"),
        (with_special_object, "not a tokenizer.json .*expected a boolean"),
        (lambda definition: definition.update(padding="x"), "not a tokenizer.json .*Padding"),
        (lambda definition: definition["model"].update(merges=[["q"]]), "not a tokenizer.json"),
    ],
)
def test_a_definition_of_a_wrong_type_is_refused_at_once(change, message, tmp_path):
    with pytest.raises(UserError, match=f"tokenizer.json: {message}"):
        load_tokenizer(write_hugging_face(tmp_path, change))


def test_a_definition_without_added_tokens_is_one_with_an_empty_list(tmp_path):
    empty = load_tokenizer(
        write_hugging_face(tmp_path, lambda definition: definition.update(added_tokens=[]))
    )
    absent = load_tokenizer(
        write_hugging_face(tmp_path, lambda definition: definition.pop("added_tokens"))
    )
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert absent.encode("Anna counts") == theirs.encode("Anna counts").ids
    assert absent.fingerprint == empty.fingerprint


def test_padding_and_truncation_of_a_file_change_nothing(tmp_path):
    def change(definition):
        definition["truncation"] = {
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0,
        }  # fmt: skip

    limited = load_tokenizer(write_hugging_face(tmp_path, change))
    assert len(limited.encode("Nobody counts 456 apples")) > 2


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_piece_that_is_not_utf8_is_refused(place, tmp_path):
    content = sentencepiece_bytes()
    letters = [i for i in range(int(place * len(content)), len(content)) if content[i] in b"aeiou"]
    spoiled = content[: letters[0]] + b"\xff" + content[letters[0] + 1 :]
    (tmp_path / "tokenizer.model").write_bytes(spoiled)
    with pytest.raises(
        UserError, match="tokenizer.model: (a piece of the|not a) SentencePiece mod"
    ):
        load_tokenizer(str(tmp_path))
