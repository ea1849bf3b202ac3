"""Prompts, and what a formatter takes from the config."""

import itertools

import pytest

from ift_jax.config.schema import Config, DataConfig, EncoderDecoderConfig
from ift_jax.errors import UserError
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.records import Message
from ift_jax.text.rows.parse_record import parse_record
from tests.text import small_tokenizers as small
from tests.text.conversations import text_record
from tests.text.formatters import small_formatter


def test_a_missing_role_or_template_is_named():
    roles = ("user", "assistant", "tool", "assistant")
    messages = [{"role": role, "content": role} for role in roles]
    record = parse_record({"messages": messages}, "f.jsonl:3")
    with pytest.raises(UserError, match="f.jsonl:3: template 'tulu': no role 'tool'"):
        small_formatter("sentencepiece", template="tulu").encode(record)
    with pytest.raises(UserError, match="no template 'chat-ml'; did you mean 'chatml'"):
        small_formatter("sentencepiece", template="chat-ml")
    with pytest.raises(UserError, match="prompt: messages.0..role: expected 'system' or 'user'"):
        small_formatter("sentencepiece").prompt([Message("assistant", "x")])


def test_the_fingerprint_depends_on_what_determines_ids_and_on_nothing_else():
    def fingerprint(architecture="decoder", kind="sentencepiece", **changes):
        lengths = {"length": 50, "inputs_length": 60, "targets_length": 70}
        return small_formatter(kind, architecture, **{**lengths, **changes}).fingerprint

    base, pair = fingerprint(), fingerprint("encoder_decoder")
    assert base == fingerprint(
        inputs_length=61, targets_length=71, input_eos=False, bidirectional_prefix=True
    )
    assert pair == fingerprint("encoder_decoder", length=51)
    different = [
        base,
        pair,
        fingerprint(kind="huggingface"),
        fingerprint(length=51),
        fingerprint(over_length="error"),
        fingerprint(template="tulu"),
        fingerprint(train_on="last"),
        fingerprint(control_strings="control"),
        fingerprint("encoder_decoder", inputs_length=61),
        fingerprint("encoder_decoder", targets_length=71),
        fingerprint("encoder_decoder", input_eos=False),
    ]
    assert all(a != b for a, b in itertools.combinations(different, 2))


def test_from_config_takes_the_lengths_of_the_run():
    config = Config(
        data=DataConfig(max_length=1, inputs_length=4, targets_length=3, over_length="error"),
        model=EncoderDecoderConfig(),
    )
    formatter = ExampleFormatter.from_config(config, small.sentencepiece_tokenizer())
    with pytest.raises(UserError, match="t:0: .* tokens; expected at most data.inputs_length = 4"):
        formatter.encode(text_record("a much longer text", "x"))
    with pytest.raises(UserError, match="expected at most data.targets_length = 3"):
        formatter.encode(text_record("", "a much longer text"))
