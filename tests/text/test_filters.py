"""The filters of training examples: what each drops and keeps, and how the drops are counted."""

import pytest

from ift_jax.config import data
from ift_jax.config.data import DataConfig
from ift_jax.text import filters
from ift_jax.text.filters import FILTERS, RowFilters
from ift_jax.text.records import TEXT_ROLE, Message, Record
from tests.text.formatters import small_formatter

LONG = "This sentence is said again and again."


def answered(*contents, **fields):
    turns = []
    for content in contents:
        turns += [Message("user", "Chinese: 你好 " + LONG), Message("assistant", content, **fields)]
    return Record(tuple(turns))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("thinking", "<think>So?\nYes.</think>\nYes.", ""),
        ("thinking", "Yes.</think>Yes.", ""),  # The template may have written the first tag.
        ("thinking", "<think>So? Yes.", "unclosed_thinking"),
        ("thinking", "<think>a</think>b<think>c", "unclosed_thinking"),
        ("thinking", "<think>\n\n</think>\nYes.", "empty_thinking"),
        ("thinking", "<think>So? Yes.</think>\n", "no_answer"),
        ("thinking", "", ""),
        ("repeats", " ".join([LONG] * 9), ""),
        ("repeats", " ".join([LONG] * 10), "repeated_sentence"),
        ("repeats", "\n\n".join(["One line\nand another"] * 10), "repeated_paragraph"),
        ("repeats", "\n\n".join(["Yes."] * 40), ""),
        ("repeats", " ".join(f"a b c d e {i}," for i in range(49)), ""),
        ("repeats", " ".join(f"a b c d e {i}," for i in range(50)), "repeated_phrase"),
        ("chinese", "a" * 95 + "你" * 5, "chinese"),
        ("chinese", "a" * 96 + "你" * 4, ""),
        ("chinese", "", ""),
        ("dates", "As of my last update in April 2023, it was so.", "dates"),
        ("dates", "My knowledge cutoff is June 2024.", "dates"),
        ("dates", "The knowledge of 2023 has no cut.", ""),
        ("identity", "I'm ChatGPT, and I can help.", "identity"),
        ("identity", "I am a large language model, trained by Google.", "identity"),
        ("identity", "As an AI assistant made by Anthropic, no.", "identity"),
        ("identity", "OpenAI released GPT-4 in 2023. I am sure.", ""),
    ],
)  # fmt: skip
def test_what_a_filter_drops(name, content, reason):
    assert FILTERS[name](answered("Fine.", content)) == reason
    assert RowFilters((name,)).reason(answered(content)) == (reason and f"filter_{reason}")
    assert FILTERS[name](Record((Message(TEXT_ROLE, content),))) == reason


def test_a_thought_in_a_field_of_its_own_counts():
    assert filters.thinking(answered("", reasoning_content="So?")) == "no_answer"
    assert filters.thinking(answered("Yes.", reasoning_content="So?")) == ""
    assert filters.thinking(answered("", reasoning_content="So?", tool_calls=({},))) == ""
    repeated = answered("Yes.", reasoning_content=f"{LONG} " * 10)
    assert filters.repeats(repeated) == "repeated_sentence"


def test_a_license_is_kept_by_name_whatever_its_case():
    wanted = RowFilters.of(DataConfig(filters=("license",), licenses=("MIT",)))
    assert wanted.reason(Record((), license="mit")) == ""
    assert wanted.reason(Record((), license="cc-by-nc-4.0")) == "filter_license"
    assert wanted.reason(Record(())) == "filter_license"
    assert RowFilters.of(DataConfig()).reason(Record((), license="other")) == ""


def test_the_config_names_every_filter():
    assert set(data.FILTERS) == {*FILTERS, "license"}


def test_only_training_examples_are_filtered_and_the_fingerprint_knows():
    record = Record((Message("user", "?"), Message("assistant", "I'm Claude.")))
    plain = small_formatter("byte_level")
    filtered = small_formatter("byte_level", filters=RowFilters(("identity",)))
    assert isinstance(plain.encode(record), list)
    assert filtered.encode(record).reason == "filter_identity"
    [dropped] = filtered.encode_each([record])
    assert dropped.reason == "filter_identity"
    assert (
        filtered.prompt(record.messages[:1]).tolist() == plain.prompt(record.messages[:1]).tolist()
    )
    assert filtered.fingerprint != plain.fingerprint
